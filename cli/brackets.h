/* Words between "[" and "]": a command that starts a server, as one name. */
#ifndef IMGTK_CLI_BRACKETS_H
#define IMGTK_CLI_BRACKETS_H

#include "cli.h"

/*
 * Joins each "[ WORD... ]" of the command line into one word, "[ WORD... ]" with quotes where they are needed, before
 * options are looked for: those of the command are its own. Not 0: the mistake is printed. brackets_free() afterwards.
 */
int brackets_join(struct cli *cli, int *argc, char **argv);
void brackets_free(struct cli *cli);

#endif
