/*
 * Whether an image's data clusters are mostly preallocated, never written.
 * Then it pays to ask the file for holes; else the answer would cost more than
 * it saves. The rule is QEMU's: at least two clusters and a ninth more are in
 * use than the file occupies.
 */
#include <stdlib.h>

#include "qcow2.h"

/* Counts clusters in use until the threshold is reached. */
struct census {
    struct qcow2 *image;
    uint8_t *block;
    uint64_t cluster, clusters; /* next cluster of the file, and their number */
    uint64_t used, threshold;
};

static void count_block(struct census *census, const void *block)
{
    const struct qcow2_geometry *geometry = &census->image->geometry;
    uint64_t entries = imgtk_min_u64(UINT64_C(1) << geometry->refcount_block_bits, census->clusters - census->cluster);
    for (uint64_t i = 0; i < entries; i++)
        census->used += qcow2_refcount_get(block, i, geometry->refcount_order) != 0;
}

static int count_entry(struct census *census, uint64_t entry)
{
    uint64_t cluster_size = census->image->geometry.cluster_size;
    uint64_t offset = entry & QCOW2_REFCOUNT_OFFSET_MASK;
    if (offset & (cluster_size - 1))
        return IMGTK_ECORRUPT;
    if (offset != 0) {
        int status = imgtk_storage_pread(census->image->file, census->block, (size_t)cluster_size, offset, NULL);
        if (status != 0)
            return status;
        count_block(census, census->block);
    }
    census->cluster += UINT64_C(1) << census->image->geometry.refcount_block_bits;
    return 0;
}

static int count_all(struct census *census)
{
    enum { PIECE = 512 };
    const struct qcow2_header *header = &census->image->header;
    uint64_t entries = ((uint64_t)header->refcount_table_clusters << header->cluster_bits) / 8;
    uint8_t piece[PIECE * 8];
    for (uint64_t i = 0; i < entries; i++) {
        if (i % PIECE == 0) {
            size_t bytes = (size_t)imgtk_min_u64(entries - i, PIECE) * 8;
            int status = imgtk_storage_pread(census->image->file, piece, bytes, header->refcount_table_offset + i * 8, NULL);
            if (status != 0)
                return status;
        }
        if (census->cluster >= census->clusters || census->used >= census->threshold)
            return 0;
        int status = count_entry(census, imgtk_be64(piece + i % PIECE * 8));
        if (status != 0)
            return status;
    }
    return 0;
}

static bool judge(struct qcow2 *image)
{
    const struct qcow2_geometry *geometry = &image->geometry;
    uint64_t occupied;
    if ((imgtk_storage_flags(image->file) & IMGTK_STORAGE_REMOTE) ||
        imgtk_storage_allocated(image->file, &occupied, NULL) != 0)
        return false;
    uint64_t real = occupied >> geometry->cluster_bits;
    struct census census = {
        .image = image,
        .block = malloc((size_t)geometry->cluster_size),
        .clusters = qcow2_clusters(geometry, image->file_size),
        .threshold = real + (real / 9 > 2 ? real / 9 : 2),
    };
    bool preallocated = census.block && count_all(&census) == 0 && census.used >= census.threshold;
    free(census.block);
    return preallocated;
}

bool qcow2_is_preallocated(struct qcow2 *image)
{
    int known = atomic_load_explicit(&image->preallocation, memory_order_relaxed);
    if (known == QCOW2_PREALLOCATION_UNKNOWN) {
        /* Two threads may both find out; they find the same. */
        known = judge(image) ? QCOW2_PREALLOCATION_YES : QCOW2_PREALLOCATION_NO;
        atomic_store_explicit(&image->preallocation, known, memory_order_relaxed);
    }
    return known == QCOW2_PREALLOCATION_YES;
}
