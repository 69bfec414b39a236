/* One worker of a conversion. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_WORKER_H
#define IMGTK_CORE_CONVERT_WORKER_H

#include "convert.h"
#include "resume.h"

struct worker {
    struct conversion *conversion;
    struct source_walk *walk;
    struct imgtk_walk *backing_walk; /* NULL: the target has no backing file */
    uint8_t *buffer;                 /* item_size bytes */
    uint8_t *below;                  /* what the backing file has there; NULL without one */
    struct run *runs;                /* item_size / granule of them, at least one */
    size_t run_count;                /* of the item at hand */
    bool has_read;                   /* the item at hand is in the buffer already */
    struct digest_hasher *hasher;    /* NULL: no digest is wanted */
};

/* Fills the buffer, and tells the digest what is in it. */
int worker_read(struct worker *worker, const struct item *item, struct imgtk_error *err);
/* Cuts `length` bytes of the buffer into runs, granule by granule, without those that need no writing. */
size_t worker_find_runs(struct worker *worker, size_t length);
/* Reads and writes an item of at most item_size. final: the turn's item ends with it. */
int worker_write(struct worker *worker, const struct item *item, bool final, struct imgtk_turn *turn,
                 struct imgtk_error *err);
/* An ITEM_COPY: the kernel shares or copies it, else it goes through the buffer. */
int worker_copy(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err);
/* Whatever writing to the target failed with: which of the files it was. */
int worker_name_target(const struct worker *worker, int status, struct imgtk_error *err);

#endif
