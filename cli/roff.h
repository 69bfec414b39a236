/* The parts of the manual that come from tables, in its markup (man(7)). */
#ifndef IMGTK_CLI_ROFF_H
#define IMGTK_CLI_ROFF_H

#include "cli.h"

/*
 * `imgtk help --roff PART [COMMAND]`, which the build calls. PART is commands, formats or storages; of
 * a command synopsis, options, examples or exits. Returns the exit code.
 */
int roff_print(struct cli *cli, int argc, char **argv);

#endif
