/*
 * What an image is made of, found by several threads, while the caller's takes it part by part in the order of the disk.
 * Internal to core.
 */
#ifndef IMGTK_CORE_JOBS_MAP_AHEAD_H
#define IMGTK_CORE_JOBS_MAP_AHEAD_H

#include <stddef.h>

#include "imgtk/image.h"

/* A range of the disk that one thread has walked. */
struct map_part {
    uint64_t start, end;
    uint64_t reached; /* below end where there was no room for all, or a failure: the caller walks the rest */
    struct imgtk_chain_extent *extents; /* from start to reached; neighbours that are alike are one */
    size_t count;
};

struct map_ahead;
/* `end` at most the image's size. NULL where threads would be of no use, or cannot be had. */
struct map_ahead *map_ahead_new(struct imgtk_image *image, uint64_t start, uint64_t end);
/* Waits for what is under way; NULL is allowed. */
void map_ahead_free(struct map_ahead *ahead);
/* The next part, waited for; valid until the next call. NULL: there are no more. */
const struct map_part *map_ahead_next(struct map_ahead *ahead);

#endif
