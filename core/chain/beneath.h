/* Opening a file by a path that is not trusted, beneath a folder that is. Internal to core. */
#ifndef IMGTK_CORE_CHAIN_BENEATH_H
#define IMGTK_CORE_CHAIN_BENEATH_H

#include <limits.h>
#include <stdbool.h>

/*
 * Opens the regular file at the relative `path` beneath the open folder; access: O_RDONLY or O_RDWR. Links are
 * followed while they stay beneath. -1 with errno: EXDEV: the path leads out of the folder (or, where the kernel
 * lacks openat2, has a link or ".." in it); EMEDIUMTYPE: not a regular file.
 */
int beneath_open(int folder, const char *path, int access);
/* The way without openat2. */
int beneath_open_by_walking(int folder, const char *path, int access);

/*
 * The first link on the way along `path` (without ".."): *before bytes of path lead to the folder that holds it,
 * `after` is what follows it. False when there is none that can be read.
 */
struct beneath_link {
    int before;
    const char *after;
    char target[PATH_MAX];
};
bool beneath_find_link(int folder, const char *path, struct beneath_link *out);

/* An absolute path without ".", ".." and empty components, by its text alone; false: longer than PATH_MAX. */
bool path_normalise(const char *path, char out[PATH_MAX]);
/* What follows `folder` (both normalised) in `path`, without a leading slash; NULL: it is not beneath it. */
const char *path_beneath(const char *path, const char *folder);

#endif
