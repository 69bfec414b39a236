/* What --help and the manual tell of a command; both come from its table. */
#ifndef IMGTK_CLI_HELP_H
#define IMGTK_CLI_HELP_H

#include "cli.h"

void help_print_program(const struct cli *cli);
void help_print_command(const struct cli *cli, const struct cli_command *command);

/* "-f, --format=FMT" and every other spelling of the row. */
#define HELP_SPELLING_SIZE 160
void help_spelling(const struct cli_option *option, char out[HELP_SPELLING_SIZE]);
/* The command's exit codes, or those of every command that has no own ones. */
const struct cli_exit *help_exits(const struct cli_command *command);

#endif
