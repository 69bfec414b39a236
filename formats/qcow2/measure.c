/* How large an image will be, before it is made. */
#include <inttypes.h>

#include "writer.h"

struct qcow2_refcount_clusters qcow2_refcount_clusters(const struct qcow2_geometry *geometry, uint64_t clusters)
{
    uint64_t per_block = UINT64_C(1) << geometry->refcount_block_bits;
    uint64_t per_table = geometry->cluster_size / sizeof(uint64_t);
    struct qcow2_refcount_clusters counts = { 0, 0 };
    for (;;) {
        /* Blocks count themselves and the table too; the numbers only grow, and soon meet. */
        uint64_t blocks = imgtk_div_round_up(clusters + counts.blocks + counts.table, per_block);
        uint64_t table = imgtk_div_round_up(blocks, per_table);
        if (blocks == counts.blocks && table == counts.table)
            return counts;
        counts.blocks = blocks;
        counts.table = table;
    }
}

uint64_t qcow2_written_with_refcounts(const struct qcow2_geometry *geometry, uint64_t clusters)
{
    uint64_t per_table = geometry->cluster_size / sizeof(uint64_t), moved = 0;
    struct qcow2_refcount_clusters counts = qcow2_refcount_clusters(geometry, clusters);
    if (counts.table > 1) { /* it has moved, with room to grow, and its first cluster is left behind */
        moved = 1 + imgtk_div_round_up(counts.blocks + counts.blocks / 2048 + 4, per_table) - counts.table;
        counts = qcow2_refcount_clusters(geometry, clusters + moved);
    }
    return clusters + moved + counts.blocks + counts.table;
}

/* Everything but guest data, with an L2 table for each part of the disk. */
static uint64_t metadata_bytes(const struct qcow2_geometry *geometry, uint64_t size)
{
    uint64_t tables = qcow2_l1_entries(geometry, size);
    uint64_t l1_clusters = qcow2_clusters(geometry, tables * sizeof(uint64_t));
    uint64_t data = qcow2_clusters(geometry, size);
    uint64_t all = qcow2_written_with_refcounts(geometry, 1 + l1_clusters + tables + data);
    return (all - data) << geometry->cluster_bits;
}

static int count_planned(const struct imgtk_create *args, const struct qcow2_geometry *geometry,
                         struct qcow2_planned *out, struct imgtk_error *err)
{
    uint64_t start, length, last_table = UINT64_MAX;
    for (;;) {
        int status =
            args->plan ? imgtk_plan_next(args->plan, geometry->cluster_size, out->end, &start, &length, err) : 0;
        if (status || !args->plan || length == 0)
            return status;
        uint64_t first = start >> geometry->cluster_bits, count = qcow2_clusters(geometry, length);
        uint64_t first_table = first >> geometry->l2_bits, table = (first + count - 1) >> geometry->l2_bits;
        out->clusters += count;
        out->tables += table - first_table + (first_table != last_table);
        out->end = start + length;
        last_table = table;
    }
}

int qcow2_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    struct qcow2_create_options options;
    struct qcow2_planned planned = { 0 };
    int status = qcow2_options_read(args, &options, err);
    if (status)
        return status;
    uint64_t all = qcow2_clusters(&options.geometry, options.size) << options.geometry.cluster_bits;
    /* What a backing file shares is not known before it is compared; what is preallocated is taken whole. */
    bool counts = options.preallocation == QCOW2_PREALLOCATION_OFF && !options.backing_file;
    if (counts)
        status = count_planned(args, &options.geometry, &planned, err);
    if (status)
        return status;
    uint64_t metadata = metadata_bytes(&options.geometry, options.size);
    args->unit = (uint32_t)options.geometry.cluster_size;
    out->fully_allocated = metadata + all;
    out->required = metadata + (counts ? planned.clusters << options.geometry.cluster_bits : all);
    out->upper_bound = (args->flags & IMGTK_CREATE_COMPRESS) != 0;
    out->can_have_bitmaps = options.version >= 3;
    return qcow2_measure_file(args, &options, &planned, out, err);
}
