/* One worker of a conversion. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_CONVERT_WORKER_H
#define IMGTK_CORE_CONVERT_CONVERT_WORKER_H

#include "convert.h"

struct worker {
    struct conversion *conversion;
    struct slot *slot; /* at hand */
    struct source_walk *walk;
    struct imgtk_walk *backing_walk; /* NULL: the target has no backing file */
    struct digest_hasher *hasher;    /* NULL: no digest is wanted */
};

/* The slot's data are now where the item's file is mapped, until worker_look_away(); false: they have to be read. */
bool worker_look(struct worker *worker, const struct item *item);
/* After writing them, which ended with `status`. The slot's data are the buffer then. Without having looked: status. */
int worker_look_away(struct worker *worker, int status, struct imgtk_error *err);
/* Fills the buffer, unless the worker looks at the data, and tells the digest about them. */
int worker_read(struct worker *worker, const struct item *item, struct imgtk_error *err);
/* The same, and finds what there is to write of it. */
int worker_fill(struct worker *worker, const struct item *item, struct imgtk_error *err);
/* Fills the buffer with what can be read, and zeroes for the rest, which is told. */
void worker_salvage(struct worker *worker, const struct item *item);
/* Cuts `length` bytes of the slot's data into runs, granule by granule, without those that need no writing. */
void worker_find_runs(struct worker *worker, size_t length);
/* Writes the runs of an item of at most item_size. final: the turn's item ends with it. */
int worker_write(struct worker *worker, const struct item *item, bool final, struct imgtk_turn *turn,
                 struct imgtk_error *err);
/* An ITEM_COPY: the kernel shares or copies it, else it is written by hand. */
int worker_copy(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err);
/* Whatever writing to the target failed with: which of the files it was. */
int worker_name_target(const struct worker *worker, int status, struct imgtk_error *err);

#endif
