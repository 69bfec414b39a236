/* Landlock: what this process and its children may do to files from now on, by path. */
#ifndef IMGTK_CLI_LANDLOCK_H
#define IMGTK_CLI_LANDLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* What a rule allows, on a file or on everything beneath a folder. */
enum {
    LANDLOCK_READ = 1 << 0,
    LANDLOCK_WRITE = 1 << 1, /* of files that are there */
    LANDLOCK_MAKE = 1 << 2   /* new files, under new names and in the place of old ones; a folder's alone */
};

/* Rules that are being made. */
struct landlock {
    int rules;        /* a descriptor */
    uint64_t handled; /* what they are about, as far as the kernel knows it */
};

/* The kernel's version of the interface; 0: it has none, or does not let us. */
int landlock_abi(void);
/* Rules under which nothing may be written; untrusted: nor read, nor TCP spoken. -1: errno tells. */
int landlock_begin(bool untrusted, struct landlock *out);
/* Adds a rule. What is not there, or is no place in the file system, needs none. -1: errno tells. */
int landlock_allow(const struct landlock *landlock, const char *path, int what);
/* From now on; the rules are closed. -1: errno tells, and nothing has changed. */
int landlock_enter(struct landlock *landlock);

#endif
