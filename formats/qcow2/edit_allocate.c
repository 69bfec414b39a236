/* Clusters for what a growing disk adds, before it is written. */
#include "edit.h"

/* What gets its clusters: guest clusters that have none, one behind the other. */
struct run {
    uint64_t cluster, count;
};

static const struct qcow2_geometry *geometry_of(const struct qcow2_edit *edit)
{
    return &edit->image->geometry;
}

static uint8_t *entry_of(const struct qcow2_edit *edit, uint64_t cluster)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    return edit->l2 + (cluster & ((UINT64_C(1) << geometry->l2_bits) - 1)) * geometry->l2_entry_bytes;
}

/* In an external data file, offset 0 is a place, and the "copied" flag says so. */
static bool has_place(const struct qcow2_edit *edit, uint64_t cluster)
{
    return (imgtk_be64(entry_of(edit, cluster)) & (QCOW2_OFFSET_MASK | QCOW2_COMPRESSED | QCOW2_COPIED)) != 0;
}

/* The first run from that cluster on, within the table at hand. */
static struct run next_run(const struct qcow2_edit *edit, uint64_t cluster, uint64_t end)
{
    struct run run = { .cluster = cluster };
    while (run.cluster < end && has_place(edit, run.cluster))
        run.cluster++;
    while (run.cluster + run.count < end && !has_place(edit, run.cluster + run.count))
        run.count++;
    return run;
}

/* The clusters may have been used for something else before. A raw data file ends where the disk does. */
static int clear(struct qcow2_edit *edit, const struct run *run, uint64_t host, enum imgtk_allocation how,
                 struct imgtk_error *err)
{
    unsigned bits = geometry_of(edit)->cluster_bits;
    uint64_t length = run->count << bits;
    if (!qcow2_edit_inside(edit))
        length = imgtk_min_u64(length, edit->size - host);
    return imgtk_storage_zero(edit->image->data_file, host, length,
                              how == IMGTK_ALLOCATE_METADATA ? 0 : IMGTK_ZERO_ALLOCATE, err);
}

/* Subclusters are allocated where nothing lies below them; where something may, what they say stays as it is. */
static void put_entries(struct qcow2_edit *edit, const struct run *run, uint64_t host)
{
    bool whole = geometry_of(edit)->extended_l2 && !qcow2_edit_has_backing(edit);
    for (uint64_t i = 0; i < run->count; i++) {
        uint8_t *entry = entry_of(edit, run->cluster + i);
        imgtk_put_be64(entry, (host + (i << geometry_of(edit)->cluster_bits)) | QCOW2_COPIED);
        if (whole)
            imgtk_put_be64(entry + 8, UINT32_MAX);
    }
}

static int allocate_run(struct qcow2_edit *edit, const struct run *run, enum imgtk_allocation how,
                        struct imgtk_error *err)
{
    uint64_t host = run->cluster << geometry_of(edit)->cluster_bits;
    int status = 0;
    if (qcow2_edit_inside(edit))
        status = qcow2_edit_allocate(edit, run->count, QCOW2_USE_DATA, &host, err);
    if (status == 0)
        status = clear(edit, run, host, how, err);
    if (status == 0)
        status = qcow2_edit_touch(edit, err);
    if (status == 0)
        put_entries(edit, run, host);
    return status;
}

int qcow2_edit_allocate_behind(void *handle, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t cluster = offset >> geometry->cluster_bits, end = qcow2_clusters(geometry, edit->size);
    int status = qcow2_edit_need_data(edit, err);
    if (status == 0)
        status = qcow2_edit_count(edit, err);
    if (status == 0 && qcow2_edit_raw_data(edit) && how != IMGTK_ALLOCATE_METADATA) /* what has its place already too */
        status = imgtk_storage_zero(edit->image->data_file, offset, edit->size - offset, IMGTK_ZERO_ALLOCATE, err);
    while (cluster < end && status == 0) {
        uint64_t index = cluster >> geometry->l2_bits;
        uint64_t table_end = imgtk_min_u64(end, (index + 1) << geometry->l2_bits);
        status = qcow2_edit_select(edit, index, err);
        struct run run = status == 0 ? next_run(edit, cluster, table_end) : (struct run){ .count = 0 };
        if (run.count > 0)
            status = allocate_run(edit, &run, how, err);
        cluster = run.cluster + run.count;
    }
    return status;
}
