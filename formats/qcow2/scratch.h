/*
 * Memory that read() needs to decompress: one set per thread that reads at the
 * same time, handed out last in, first out, so that a thread which reads a
 * cluster in small pieces finds it decompressed.
 */
#ifndef IMGTK_QCOW2_SCRATCH_H
#define IMGTK_QCOW2_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"

struct qcow2_scratch_pool;

struct qcow2_scratch {
    struct qcow2_scratch *next; /* in the pool */
    struct imgtk_codec *codec;
    uint8_t *input;             /* compressed bytes; see qcow2_scratch_input() */
    size_t input_size;
    uint8_t *cluster;           /* one decompressed cluster, or NULL */
    uint64_t cluster_entry;     /* the L2 entry it belongs to; 0: none */
};

int qcow2_scratch_pool_new(enum imgtk_codec_kind kind, size_t cluster_size, struct qcow2_scratch_pool **out,
                           struct imgtk_error *err);
void qcow2_scratch_pool_free(struct qcow2_scratch_pool *pool); /* NULL is allowed */
/* NULL when out of memory. */
struct qcow2_scratch *qcow2_scratch_take(struct qcow2_scratch_pool *pool);
void qcow2_scratch_give(struct qcow2_scratch_pool *pool, struct qcow2_scratch *scratch);
/* Make scratch->input hold that many bytes, scratch->cluster a cluster; false when out of memory. */
bool qcow2_scratch_input(struct qcow2_scratch *scratch, size_t size);
bool qcow2_scratch_cluster(const struct qcow2_scratch_pool *pool, struct qcow2_scratch *scratch);

#endif
