/* Reading pieces of disks in other threads, while the caller's takes them one after the other. Internal to core. */
#ifndef IMGTK_CORE_JOBS_READAHEAD_H
#define IMGTK_CORE_JOBS_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgtk/error.h"

#define READAHEAD_SIZE (2u << 20) /* bytes that a piece has at most */

struct readahead_piece {
    uint64_t offset;
    size_t length;
    uint8_t *ours, *theirs; /* READAHEAD_SIZE bytes each; theirs only when asked for */
};

struct readahead_options {
    /* Fills the buffers; called by several threads at once. */
    int (*read)(void *context, const struct readahead_piece *piece, struct imgtk_error *err);
    /* Called for each piece, in the order in which they were added, by the thread that adds and drains. */
    int (*take)(void *context, const struct readahead_piece *piece, struct imgtk_error *err);
    void *context;
    bool theirs;      /* pieces have a second buffer */
    unsigned workers; /* threads that read; the calls work with none too */
};

struct readahead;
int readahead_new(const struct readahead_options *options, struct readahead **out, struct imgtk_error *err);
/* Waits for what is being read and drops what was not taken; NULL is allowed. */
void readahead_free(struct readahead *ahead);
/* The range, in pieces. Fails with what reading or taking an earlier one failed with. */
int readahead_add(struct readahead *ahead, uint64_t offset, uint64_t length, struct imgtk_error *err);
/* Where the oldest piece begins that was added and not taken; `none` where there is no such piece. */
uint64_t readahead_oldest(const struct readahead *ahead, uint64_t none);
/* Takes all that were added. */
int readahead_drain(struct readahead *ahead, struct imgtk_error *err);

#endif
