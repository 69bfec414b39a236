/* What can stand at the end of a command line, for the completion of a shell. */
#ifndef IMGTK_CLI_COMPLETE_H
#define IMGTK_CLI_COMPLETE_H

#include "cli.h"

/*
 * `imgtk help --complete WORD...`, which the scripts in conf/completion call: the words are those behind the program's
 * name up to the cursor, the last one begun and maybe empty. Prints a line for each word that can stand there instead,
 * a tab and what it means. One that ends in '=' or ',' is not finished. A line ":files PREFIX" or ":folders PREFIX"
 * says that PREFIX and any such name can. Returns the exit code.
 */
int complete_print(struct cli *cli, int argc, char **argv);

#endif
