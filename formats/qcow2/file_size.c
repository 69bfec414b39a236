/* The exact size of an image's file, before it is made: what the writer takes, counted and not written. */
#include "writer.h"

/* Mirrors struct qcow2_clusters: in the order of places, without tables and counts. */
struct layout {
    const struct qcow2_geometry *geometry;
    uint64_t next;   /* the first host cluster that was not taken */
    uint64_t end;    /* bytes of the file that are needed so far */
    uint64_t blocks; /* refcount blocks */
};

static uint64_t block_of(const struct layout *layout, uint64_t cluster)
{
    return cluster >> layout->geometry->refcount_block_bits;
}

/* As qcow2_clusters_take(). */
static void take(struct layout *layout, uint64_t count, uint64_t bytes)
{
    uint64_t first = layout->next;
    for (; first != 0 && layout->blocks <= block_of(layout, first); first++)
        layout->blocks++;
    uint64_t end = first + count;
    for (; layout->blocks <= block_of(layout, end - 1); end++)
        layout->blocks++;
    layout->next = end;
    layout->end = end == first + count ? (first << layout->geometry->cluster_bits) + bytes
                                       : end << layout->geometry->cluster_bits;
}

/* `count` clusters, each taken by itself; of the last one `bytes` are used. */
static void take_singles(struct layout *layout, uint64_t count, uint64_t bytes)
{
    if (count == 0)
        return;
    while (count > 0) {
        if (layout->blocks <= block_of(layout, layout->next)) {
            layout->blocks++;
            layout->next++;
        }
        uint64_t room = (layout->blocks << layout->geometry->refcount_block_bits) - layout->next;
        uint64_t now = imgtk_min_u64(count, room);
        layout->next += now;
        count -= now;
    }
    layout->end = ((layout->next - 1) << layout->geometry->cluster_bits) + bytes;
}

/* With extended L2, the file ends behind the last subcluster that is data; a smaller part than that is not planned. */
static int last_bytes(const struct imgtk_create *args, const struct qcow2_geometry *geometry, uint64_t end,
                      uint64_t *out, struct imgtk_error *err)
{
    uint64_t cluster = imgtk_round_down(end - 1, geometry->cluster_size), data_end = cluster;
    uint64_t start = 0, length = 1;
    int status = 0;
    *out = imgtk_round_up(end - cluster, QCOW2_COMPRESSED_SECTOR);
    while (!status && geometry->extended_l2 && length > 0 && data_end < end) {
        status = imgtk_plan_next(args->plan, UINT64_C(1) << geometry->subcluster_bits, data_end, &start, &length, err);
        data_end = length > 0 ? start + length : data_end;
        *out = imgtk_round_up(data_end - cluster, QCOW2_COMPRESSED_SECTOR);
    }
    return status;
}

static int take_data(struct layout *layout, const struct imgtk_create *args, const struct qcow2_create_options *options,
                     const struct qcow2_planned *planned, uint64_t l1_entries, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = layout->geometry;
    uint64_t bytes = 0;
    if (options->preallocation != QCOW2_PREALLOCATION_OFF) {
        if (options->size > 0) {
            take(layout, l1_entries, l1_entries << geometry->cluster_bits);
            take(layout, qcow2_clusters(geometry, options->size), options->size);
        }
        return 0;
    }
    int status = planned->clusters > 0 ? last_bytes(args, geometry, planned->end, &bytes, err) : 0;
    if (!status)
        take_singles(layout, planned->clusters + planned->tables, bytes);
    return status;
}

int qcow2_measure_file(const struct imgtk_create *args, const struct qcow2_create_options *options,
                       const struct qcow2_planned *planned, struct imgtk_measure *out, struct imgtk_error *err)
{
    bool compared = options->backing_file && args->plan && options->preallocation == QCOW2_PREALLOCATION_OFF;
    if (compared || options->data_file)
        return 0;
    const struct qcow2_geometry *geometry = &options->geometry;
    struct layout layout = { .geometry = geometry };
    uint64_t l1_entries = qcow2_l1_entries(geometry, options->size), l1_bytes = l1_entries * sizeof(uint64_t);
    take(&layout, 2, 2 * geometry->cluster_size);
    if (l1_bytes > 0)
        take(&layout, qcow2_clusters(geometry, l1_bytes), l1_bytes);
    int status = take_data(&layout, args, options, planned, l1_entries, err);
    uint64_t table = qcow2_moved_table_clusters(geometry, layout.blocks);
    if (!status && table > 0)
        take(&layout, table, table << geometry->cluster_bits);
    out->file_size = layout.end;
    out->file_size_known = true;
    return status;
}
