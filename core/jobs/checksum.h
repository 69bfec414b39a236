/* Reading disks for their digest. Internal to core; see jobs.h for the job. */
#ifndef IMGTK_CORE_JOBS_CHECKSUM_H
#define IMGTK_CORE_JOBS_CHECKSUM_H

#include "chain/source.h"
#include "digest_tree.h"
#include "imgtk/jobs.h"

/* One reading of a disk, from its beginning. */
struct checksum_pass {
    const struct source *source;
    uint64_t length; /* of what is read: all of the tree's disk, or whole blocks */
    bool in_order;   /* one thread at a time reads, in the order of the disk */
    unsigned workers;
    struct imgtk_progress progress;    /* what has been done before */
    imgtk_progress_fn tell;            /* may be NULL */
    void *tell_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
};

/* Tells the tree of all that is read. */
int checksum_tree(struct checksum_pass *pass, struct digest_tree *tree, struct imgtk_error *err);
/* The digest of the first `length` bytes, as of a disk of that size. */
int checksum_disk(struct checksum_pass *pass, const struct imgtk_digest *digest, uint8_t *out, struct imgtk_error *err);
/* The plain digest of the bytes. */
int checksum_flat(struct checksum_pass *pass, const struct imgtk_digest *digest, uint8_t *out, struct imgtk_error *err);

/* Counts bytes as done, and tells the listener; not 0: stop. For one thread at a time. */
int checksum_advance(struct checksum_pass *pass, uint64_t done, uint64_t data, struct imgtk_error *err);

#endif
