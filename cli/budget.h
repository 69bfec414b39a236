/* What a run may use up: the options, the configuration, and what --untrusted adds. */
#ifndef IMGTK_CLI_BUDGET_H
#define IMGTK_CLI_BUDGET_H

#include "cli.h"

/* Sets the context's budget, and the process's limits of memory, time and the length of a file. Not 0: the mistake is
   printed. */
int budget_set(struct cli *cli, const struct cli_common *common);
/* For -v. */
void budget_note(const struct cli *cli);

#endif
