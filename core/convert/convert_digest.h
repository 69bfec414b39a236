/* The digest of what a conversion writes, and the target read back. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_CONVERT_DIGEST_H
#define IMGTK_CORE_CONVERT_CONVERT_DIGEST_H

#include "imgtk/jobs.h"
#include "jobs/digest_tree.h"

struct conversion;

struct conversion_digest {
    const struct imgtk_digest *module;
    struct digest_tree *tree; /* NULL: nobody wants it */
    uint64_t from;            /* what lies before it the tree was told of before the workers began */
};

/* Makes the tree, if the job wants one. Before the target is made, so that an unknown algorithm leaves no trace. */
int convert_digest_begin(struct conversion *conversion, struct imgtk_error *err);
/* Reads once more what an earlier run has written, up to the conversion's position. */
int convert_digest_resume(struct conversion *conversion, struct imgtk_error *err);
/* Tells the tree of bytes of the disk, without those that it has heard of. hasher NULL: nobody wants it. */
int convert_digest_data(const struct conversion *conversion, struct digest_hasher *hasher, const uint8_t *bytes,
                        uint64_t offset, uint64_t length, struct imgtk_error *err);
/* The same for zeroes. */
int convert_digest_zero(const struct conversion *conversion, struct digest_hasher *hasher, uint64_t offset,
                        uint64_t length, struct imgtk_error *err);
int convert_digest_end(struct conversion *conversion, struct imgtk_digest_value *out, struct imgtk_error *err);

/*
 * Reads back the target, which is finished and has no name yet, and computes its digest; IMGTK_ECORRUPT: it is not the
 * expected one. The journal of a conversion that can be resumed is then good for nothing, and discarded.
 */
int convert_verify(struct conversion *conversion, const struct imgtk_digest_value *expected, struct imgtk_error *err);

#endif
