/*
 * The digest of a disk's content, put together from pieces that arrive in any order. docs/checksum.md defines it.
 * Internal to core.
 *
 * Only the roots of the largest subtrees that are complete are kept. Since pieces are taken in the order of the disk,
 * what is complete has as many gaps as there are pieces at work, so these are few, however large the disk is.
 */
#ifndef IMGTK_CORE_JOBS_DIGEST_TREE_H
#define IMGTK_CORE_JOBS_DIGEST_TREE_H

#include "imgtk/digest.h"

#define DIGEST_BLOCK (64u << 10)

struct digest_tree;
/* `digest` must outlive the tree. */
int digest_tree_new(const struct imgtk_digest *digest, uint64_t size, struct digest_tree **out,
                    struct imgtk_error *err);
void digest_tree_free(struct digest_tree *tree); /* NULL is allowed */

/* Computes for one thread at a time; several share a tree. */
struct digest_hasher;
int digest_hasher_new(struct digest_tree *tree, struct digest_hasher **out, struct imgtk_error *err);
void digest_hasher_free(struct digest_hasher *hasher); /* NULL is allowed */

/*
 * Bytes of the disk, and bytes that are known to be zero. Every byte is told of exactly once. offset and length are
 * multiples of DIGEST_BLOCK, but for the length at the end of the disk.
 */
int digest_hasher_data(struct digest_hasher *hasher, const uint8_t *bytes, uint64_t offset, uint64_t length,
                       struct imgtk_error *err);
int digest_hasher_zero(struct digest_hasher *hasher, uint64_t offset, uint64_t length, struct imgtk_error *err);

/* The digest of the disk, once all of it was told of. */
int digest_tree_end(struct digest_tree *tree, uint8_t out[IMGTK_DIGEST_MAX], struct imgtk_error *err);

#endif
