/* Host clusters of a new image, handed out in ascending order, and their refcounts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "writer.h"

static uint64_t clusters_per_block(const struct qcow2_clusters *clusters)
{
    return UINT64_C(1) << clusters->geometry.refcount_block_bits;
}

static uint64_t block_of(const struct qcow2_clusters *clusters, uint64_t cluster)
{
    return cluster >> clusters->geometry.refcount_block_bits;
}

static int write_block(struct qcow2_clusters *clusters, struct imgtk_error *err)
{
    return imgtk_storage_pwrite(clusters->file, clusters->block, clusters->geometry.cluster_size,
                                clusters->blocks[clusters->block_index], err);
}

/* Counts from `first` to `end`, which lie in the current block, become 1. */
static void fill_ones(struct qcow2_clusters *clusters, uint64_t first, uint64_t end)
{
    unsigned order = clusters->geometry.refcount_order;
    uint64_t mask = clusters_per_block(clusters) - 1;
    if (end - first == mask + 1) {
        /* A whole block: one pattern, eight bytes at a time. */
        uint8_t pattern[8] = { 0 };
        for (uint64_t i = 0; i < UINT64_C(64) >> order; i++)
            qcow2_refcount_put(pattern, i, order, 1);
        for (uint64_t at = 0; at < clusters->geometry.cluster_size; at += sizeof(pattern))
            memcpy(clusters->block + at, pattern, sizeof(pattern));
        return;
    }
    for (uint64_t cluster = first; cluster < end; cluster++)
        qcow2_refcount_put(clusters->block, cluster & mask, order, 1);
}

/* Clusters from clusters->next to `end` are used once; the blocks that this completes are written. */
static int count_ones(struct qcow2_clusters *clusters, uint64_t end, struct imgtk_error *err)
{
    uint64_t cluster = clusters->next;
    while (cluster < end) {
        uint64_t index = block_of(clusters, cluster);
        if (index != clusters->block_index) {
            int status = write_block(clusters, err);
            if (status)
                return status;
            memset(clusters->block, 0, clusters->geometry.cluster_size);
            clusters->block_index = index;
        }
        uint64_t block_end = imgtk_min_u64(end, (index + 1) << clusters->geometry.refcount_block_bits);
        fill_ones(clusters, cluster, block_end);
        cluster = block_end;
    }
    return 0;
}

static int table_too_large(struct imgtk_error *err)
{
    return imgtk_fail(err, IMGTK_ELIMIT,
                      "the image needs a refcount table of more than %" PRIu64 " bytes: use a larger cluster size",
                      QCOW2_MAX_REFCOUNT_TABLE_BYTES);
}

static int add_block(struct qcow2_clusters *clusters, uint64_t cluster, struct imgtk_error *err)
{
    if (clusters->block_count == QCOW2_MAX_REFCOUNT_TABLE_BYTES / sizeof(uint64_t))
        return table_too_large(err);
    if (clusters->block_count == clusters->block_room) {
        uint64_t room = clusters->block_room ? clusters->block_room * 2 : 64;
        uint64_t *blocks = realloc(clusters->blocks, room * sizeof(*blocks));
        if (!blocks)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount table");
        clusters->blocks = blocks;
        clusters->block_room = room;
    }
    clusters->blocks[clusters->block_count++] = cluster << clusters->geometry.cluster_bits;
    return 0;
}

/* Adds the blocks that count the clusters up to *end, each at *end, which it moves on. */
static int add_blocks(struct qcow2_clusters *clusters, uint64_t *end, struct imgtk_error *err)
{
    int status = 0;
    while (!status && clusters->block_count <= block_of(clusters, *end - 1))
        status = add_block(clusters, (*end)++, err);
    return status;
}

int qcow2_clusters_take(struct qcow2_clusters *clusters, uint64_t count, uint64_t bytes, uint64_t *offset,
                        struct imgtk_error *err)
{
    uint64_t first = clusters->next;
    int status = 0;
    while (!status && first != 0 && clusters->block_count <= block_of(clusters, first))
        status = add_block(clusters, first++, err);
    if (status)
        return status;
    unsigned bits = clusters->geometry.cluster_bits;
    uint64_t end;
    if (!imgtk_add_u64(first, count, &end) || end > QCOW2_OFFSET_MASK >> bits)
        return imgtk_fail(err, IMGTK_ELIMIT, "the image file would exceed %" PRIu64 " bytes", QCOW2_OFFSET_MASK);
    status = add_blocks(clusters, &end, err);
    if (!status)
        status = count_ones(clusters, end, err);
    if (status)
        return status;
    clusters->next = end;
    *offset = first << bits;
    clusters->end = end == first + count ? *offset + bytes : end << bits;
    return 0;
}

/* Whether the packed cluster can be gone on with into the one behind it, which then is the next to be taken. */
static bool hole_goes_on(const struct qcow2_clusters *clusters)
{
    uint64_t next = clusters->next;
    return clusters->hole_end == next << clusters->geometry.cluster_bits && clusters->hole < clusters->hole_end &&
           clusters->block_count > block_of(clusters, next) && block_of(clusters, next - 1) == block_of(clusters, next);
}

static void share_hole(struct qcow2_clusters *clusters)
{
    uint64_t cluster = (clusters->hole_end >> clusters->geometry.cluster_bits) - 1;
    qcow2_refcount_put(clusters->block, cluster & (clusters_per_block(clusters) - 1),
                       clusters->geometry.refcount_order, ++clusters->hole_count);
}

/* A cluster can be shared while its count has room and its block has not been written. */
static bool can_share_hole(const struct qcow2_clusters *clusters)
{
    return clusters->hole_end != 0 &&
           block_of(clusters, (clusters->hole_end >> clusters->geometry.cluster_bits) - 1) == clusters->block_index &&
           clusters->hole_count < qcow2_refcount_max(clusters->geometry.refcount_order);
}

int qcow2_clusters_take_bytes(struct qcow2_clusters *clusters, uint64_t bytes, uint64_t *offset,
                              struct imgtk_error *err)
{
    bool share = can_share_hole(clusters);
    if (share && bytes <= clusters->hole_end - clusters->hole) {
        share_hole(clusters);
        *offset = clusters->hole;
    } else {
        bool go_on = share && hole_goes_on(clusters);
        if (go_on)
            share_hole(clusters);
        uint64_t cluster;
        int status = qcow2_clusters_take(clusters, 1, 0, &cluster, err);
        if (status)
            return status;
        *offset = go_on ? clusters->hole : cluster;
        clusters->hole_end = cluster + clusters->geometry.cluster_size;
        clusters->hole_count = 1;
    }
    clusters->hole = *offset + bytes;
    if (clusters->hole > UINT64_C(1) << clusters->geometry.compressed_shift)
        return imgtk_fail(err, IMGTK_ELIMIT, "compressed clusters of %" PRIu64 " bytes cannot lie beyond byte %" PRIu64,
                          clusters->geometry.cluster_size, UINT64_C(1) << clusters->geometry.compressed_shift);
    /* Readers take whole sectors. */
    if (clusters->hole_end == clusters->next << clusters->geometry.cluster_bits)
        clusters->end = imgtk_round_up(clusters->hole, QCOW2_COMPRESSED_SECTOR);
    return 0;
}

int qcow2_clusters_init(struct qcow2_clusters *clusters, struct imgtk_storage *file,
                        const struct qcow2_geometry *geometry, struct imgtk_error *err)
{
    memset(clusters, 0, sizeof(*clusters));
    clusters->file = file;
    clusters->geometry = *geometry;
    clusters->block = calloc(1, geometry->cluster_size);
    if (!clusters->block)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount block");
    uint64_t header;
    return qcow2_clusters_take(clusters, 2, 2 * geometry->cluster_size, &header, err);
}

void qcow2_clusters_free(struct qcow2_clusters *clusters)
{
    free(clusters->block);
    free(clusters->blocks);
}

/* The table has outgrown its first cluster, which becomes a free one. */
static int free_first_table(struct qcow2_clusters *clusters, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &clusters->geometry;
    int status = imgtk_storage_pread(clusters->file, clusters->block, geometry->cluster_size, clusters->blocks[0], err);
    if (status)
        return status;
    qcow2_refcount_put(clusters->block, 1, geometry->refcount_order, 0);
    return imgtk_storage_pwrite(clusters->file, clusters->block, geometry->cluster_size, clusters->blocks[0], err);
}

uint64_t qcow2_moved_table_clusters(const struct qcow2_geometry *geometry, uint64_t blocks)
{
    uint64_t entries_per_cluster = geometry->cluster_size / sizeof(uint64_t);
    if (blocks <= entries_per_cluster)
        return 0;
    /* The table's own clusters need blocks too: one more for each 64 of its clusters at the least block size. */
    return imgtk_div_round_up(blocks + blocks / 2048 + 4, entries_per_cluster);
}

static int place_table(struct qcow2_clusters *clusters, struct qcow2_places *places, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &clusters->geometry;
    places->refcount_table_offset = geometry->cluster_size;
    places->refcount_table_clusters = 1;
    uint64_t count = qcow2_moved_table_clusters(geometry, clusters->block_count);
    if (count == 0)
        return 0;
    if (count * geometry->cluster_size > QCOW2_MAX_REFCOUNT_TABLE_BYTES)
        return table_too_large(err);
    places->refcount_table_clusters = (uint32_t)count;
    return qcow2_clusters_take(clusters, count, count * geometry->cluster_size, &places->refcount_table_offset, err);
}

/* In pieces of the block's buffer, which has been written by now. */
static int write_table(struct qcow2_clusters *clusters, const struct qcow2_places *places, struct imgtk_error *err)
{
    uint64_t cluster_size = clusters->geometry.cluster_size;
    uint64_t per_cluster = cluster_size / sizeof(uint64_t);
    for (uint64_t i = 0; i < places->refcount_table_clusters; i++) {
        memset(clusters->block, 0, cluster_size);
        for (uint64_t j = 0; j < per_cluster && i * per_cluster + j < clusters->block_count; j++)
            imgtk_put_be64(clusters->block + j * sizeof(uint64_t), clusters->blocks[i * per_cluster + j]);
        int status = imgtk_storage_pwrite(clusters->file, clusters->block, cluster_size,
                                          places->refcount_table_offset + i * cluster_size, err);
        if (status)
            return status;
    }
    return 0;
}

int qcow2_clusters_finish(struct qcow2_clusters *clusters, struct qcow2_places *places, struct imgtk_error *err)
{
    int status = place_table(clusters, places, err);
    if (!status)
        status = write_block(clusters, err);
    if (!status && places->refcount_table_clusters > 1)
        status = free_first_table(clusters, err);
    return status ? status : write_table(clusters, places, err);
}
