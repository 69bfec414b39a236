/* The refcounts that the image stores. */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

enum { CACHE_BYTES = 8 << 20 };

static int load_block(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    const struct qcow2_check_state *state = context;
    return imgtk_storage_pread(state->image->file, table, (size_t)state->image->geometry.cluster_size, key, err);
}

static int load_table(struct qcow2_check_state *state, struct imgtk_error *err)
{
    const struct qcow2_header *header = &state->image->header;
    uint64_t bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    int status = 0;
    if (header->refcount_table_offset == 0 || bytes == 0 ||
        !imgtk_range_fits(header->refcount_table_offset, bytes, state->file_size)) {
        qcow2_check_corruption(state, "ERROR refcount table of %" PRIu64 " bytes at 0x%" PRIx64
                                      " is not within the file", bytes, header->refcount_table_offset);
        state->table_faults++;
        state->rebuild = true;
        return 0;
    }
    qcow2_count_range(state, header->refcount_table_offset, bytes, QCOW2_USE_ALONE, &status, err);
    if (status != 0)
        return status;
    state->refcount_table = malloc((size_t)bytes);
    if (!state->refcount_table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount table of %" PRIu64 " bytes", bytes);
    status = imgtk_storage_pread(state->image->file, state->refcount_table, (size_t)bytes, header->refcount_table_offset, err);
    if (status != 0)
        return status;
    state->refcount_blocks = bytes / 8;
    for (uint64_t i = 0; i < state->refcount_blocks; i++)
        state->refcount_table[i] = imgtk_be64(&state->refcount_table[i]);
    return 0;
}

/* Whether the block can be used; what cannot is reported and left out. */
static bool judge_block(struct qcow2_check_state *state, uint64_t index, uint64_t entry)
{
    uint64_t cluster_size = state->image->geometry.cluster_size, offset = entry & QCOW2_REFCOUNT_OFFSET_MASK;
    const char *fault = NULL;
    if (entry & QCOW2_REFCOUNT_RESERVED)
        fault = "has reserved bits set";
    else if (offset & (cluster_size - 1))
        fault = "is not aligned";
    else if (!imgtk_range_fits(offset, cluster_size, state->file_size))
        fault = "is outside the file";
    if (fault) {
        qcow2_check_corruption(state, "ERROR refcount block %" PRIu64 " %s, entry=0x%" PRIx64, index, fault, entry);
        state->table_faults++;
        state->rebuild = true;
    }
    return !fault;
}

static int count_blocks(struct qcow2_check_state *state, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    int status = 0;
    for (uint64_t i = 0; i < state->refcount_blocks && status == 0; i++) {
        uint64_t *entry = &state->refcount_table[i];
        if (*entry == 0)
            continue;
        if (!judge_block(state, i, *entry)) {
            *entry = 0;
            continue;
        }
        qcow2_count_range(state, *entry, geometry->cluster_size, QCOW2_USE_ALONE, &status, err);
        if (status == 0 && qcow2_tally_use(&state->tally, *entry >> geometry->cluster_bits) == QCOW2_USE_CLASH) {
            /* It must not be written to: what else lies there would change. */
            qcow2_check_corruption(state, "ERROR refcount block %" PRIu64 " at 0x%" PRIx64 " is used for something else too",
                                   i, *entry);
            state->table_faults++;
            state->rebuild = true;
        }
    }
    return status;
}

void qcow2_refcounts_let_go(struct qcow2_check_state *state, struct qcow2_check_worker *worker)
{
    if (worker->held_block)
        imgtk_cache_put(state->blocks, worker->held_block);
    worker->held_block = NULL;
}

void qcow2_refcounts_forget(struct qcow2_check_state *state)
{
    qcow2_refcounts_let_go(state, &state->own);
    imgtk_cache_free(state->blocks);
    state->blocks = NULL;
}

int qcow2_refcounts_refresh(struct qcow2_check_state *state, struct imgtk_error *err)
{
    qcow2_refcounts_forget(state);
    return imgtk_cache_new((size_t)state->image->geometry.cluster_size, CACHE_BYTES, load_block, state, &state->blocks,
                           err);
}

int qcow2_refcounts_open(struct qcow2_check_state *state, struct imgtk_error *err)
{
    int status = qcow2_refcounts_refresh(state, err);
    if (status == 0)
        status = load_table(state, err);
    return status == 0 ? count_blocks(state, err) : status;
}

/* Neighbours are asked for one after another: their block stays held. */
static int hold_block(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t index,
                      struct imgtk_error *err)
{
    if (worker->held_block && worker->held_index == index)
        return 0;
    qcow2_refcounts_let_go(state, worker);
    worker->held_index = index;
    return imgtk_cache_get(state->blocks, state->refcount_table[index], &worker->held_block, err);
}

int qcow2_refcount_of(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t cluster,
                      uint64_t *out, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    uint64_t index = cluster >> geometry->refcount_block_bits;
    *out = 0;
    if (state->flags_by_references && cluster < state->tally.clusters)
        *out = qcow2_tally_count(&state->tally, cluster);
    if (state->flags_by_references || index >= state->refcount_blocks || state->refcount_table[index] == 0)
        return 0;
    int status = hold_block(state, worker, index, err);
    if (status == 0)
        *out = qcow2_refcount_get(worker->held_block, cluster & ((UINT64_C(1) << geometry->refcount_block_bits) - 1),
                                  geometry->refcount_order);
    return status;
}

bool qcow2_refcount_span(const struct qcow2_check_state *state, uint64_t index, uint64_t *first, uint64_t *end)
{
    unsigned bits = state->image->geometry.refcount_block_bits;
    *first = index << bits;
    *end = imgtk_min_u64((index + 1) << bits, state->clusters);
    return *first < state->clusters;
}
