/*
 * What the process may still do once it begins to look at images. A command adds the names that it was given and enters
 * before it opens the first of them.
 *
 * Trusted: nothing is written outside the folders of the destinations, where the kernel has Landlock. Untrusted:
 * nothing else is read either, and a filter of system calls leaves no network and no other program.
 */
#ifndef IMGTK_CLI_CONFINE_H
#define IMGTK_CLI_CONFINE_H

#include "cli.h"

enum confine_use {
    CONFINE_READ,
    CONFINE_EDIT,  /* written in place, with what it refers to */
    CONFINE_CREATE /* made anew, with what lies beside it, or written in its place */
};

/* Notes one name (NULL: none) as imgtk_storage_open() takes it. Not 0: the failure is printed. */
int confine_add(struct cli *cli, enum confine_use use, const char *name);
/* Not 0: the failure is printed. */
int confine_enter(struct cli *cli);
/* Whether an image may be opened now: an untrusted one only after confine_enter(). */
bool confine_is_ready(const struct cli *cli);
void confine_free(struct cli *cli);

#endif
