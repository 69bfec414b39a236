/* L1 and L2 tables of a new image: filled in guest order, so one L2 table and a window of the L1 are in memory. */
#include <stdlib.h>
#include <string.h>

#include "writer.h"

enum { L1_WINDOW_ENTRIES = 8192 };

static int flush_l1(struct qcow2_writer *writer, struct imgtk_error *err)
{
    uint64_t first = writer->l1_window * L1_WINDOW_ENTRIES;
    uint64_t count = imgtk_min_u64(writer->l1_entries - first, L1_WINDOW_ENTRIES);
    return imgtk_storage_pwrite(writer->file, writer->l1, count * sizeof(uint64_t),
                                writer->places.l1_offset + first * sizeof(uint64_t), err);
}

static int set_l1(struct qcow2_writer *writer, uint64_t index, uint64_t entry, struct imgtk_error *err)
{
    if (index / L1_WINDOW_ENTRIES != writer->l1_window) {
        int status = flush_l1(writer, err);
        if (status)
            return status;
        memset(writer->l1, 0, L1_WINDOW_ENTRIES * sizeof(uint64_t));
        writer->l1_window = index / L1_WINDOW_ENTRIES;
    }
    imgtk_put_be64(writer->l1 + index % L1_WINDOW_ENTRIES * sizeof(uint64_t), entry);
    return 0;
}

static void set_entry(struct qcow2_writer *writer, uint64_t index, uint64_t entry, uint64_t bitmap)
{
    uint8_t *at = writer->l2 + index * writer->geometry.l2_entry_bytes;
    imgtk_put_be64(at, entry);
    if (writer->geometry.extended_l2)
        imgtk_put_be64(at + sizeof(uint64_t), bitmap);
}

void qcow2_tables_set(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t entry, uint64_t bitmap)
{
    set_entry(writer, guest_cluster & ((UINT64_C(1) << writer->geometry.l2_bits) - 1), entry, bitmap);
}

/* All clusters of the open table have their places already; without a backing file they count as written. */
static void fill_linear(struct qcow2_writer *writer)
{
    uint64_t guest = writer->l2_index << writer->geometry.l2_bits;
    uint64_t clusters = qcow2_clusters(&writer->geometry, writer->size) - guest;
    uint64_t count = imgtk_min_u64(clusters, UINT64_C(1) << writer->geometry.l2_bits);
    uint64_t host = writer->data_start + (guest << writer->geometry.cluster_bits);
    for (uint64_t i = 0; i < count; i++, host += writer->geometry.cluster_size)
        set_entry(writer, i, host | QCOW2_COPIED, writer->has_backing ? 0 : UINT32_MAX);
}

static int open_table(struct qcow2_writer *writer, uint64_t index, struct imgtk_error *err)
{
    uint64_t cluster_size = writer->geometry.cluster_size;
    int status = 0;
    if (writer->linear)
        writer->l2_offset = writer->l2_tables_start + index * cluster_size;
    else
        status = qcow2_clusters_take(&writer->clusters, 1, cluster_size, &writer->l2_offset, err);
    if (!status)
        status = set_l1(writer, index, writer->l2_offset | QCOW2_COPIED, err);
    if (status)
        return status;
    memset(writer->l2, 0, cluster_size);
    writer->l2_index = index;
    writer->l2_open = true;
    if (writer->linear)
        fill_linear(writer);
    return 0;
}

static int close_table(struct qcow2_writer *writer, struct imgtk_error *err)
{
    if (!writer->l2_open)
        return 0;
    writer->l2_open = false;
    return imgtk_storage_pwrite(writer->file, writer->l2, writer->geometry.cluster_size, writer->l2_offset, err);
}

static int select_index(struct qcow2_writer *writer, uint64_t index, struct imgtk_error *err)
{
    int status = close_table(writer, err);
    return status ? status : open_table(writer, index, err);
}

int qcow2_tables_select(struct qcow2_writer *writer, uint64_t guest_cluster, struct imgtk_error *err)
{
    uint64_t index = guest_cluster >> writer->geometry.l2_bits;
    if (writer->l2_open && writer->l2_index == index)
        return 0;
    if (writer->l2_open && index < writer->l2_index)
        return imgtk_fail(err, IMGTK_EINVAL, "a write came out of order");
    uint64_t from = !writer->linear ? index : writer->l2_open ? writer->l2_index + 1 : 0;
    int status = 0;
    for (; !status && from <= index; from++)
        status = select_index(writer, from, err);
    return status;
}

int qcow2_tables_init(struct qcow2_writer *writer, struct imgtk_error *err)
{
    writer->l1_entries = qcow2_l1_entries(&writer->geometry, writer->size);
    writer->l1 = calloc(L1_WINDOW_ENTRIES, sizeof(uint64_t));
    writer->l2 = malloc(writer->geometry.cluster_size);
    if (!writer->l1 || !writer->l2)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L2 table");
    uint64_t bytes = writer->l1_entries * sizeof(uint64_t);
    if (bytes == 0) {
        writer->places.l1_offset = writer->clusters.next << writer->geometry.cluster_bits;
        return 0;
    }
    int status = qcow2_clusters_take(&writer->clusters, qcow2_clusters(&writer->geometry, bytes), bytes,
                                     &writer->places.l1_offset, err);
    if (status || (imgtk_storage_flags(writer->file) & IMGTK_STORAGE_READS_ZERO))
        return status;
    return imgtk_storage_zero(writer->file, writer->places.l1_offset, bytes, 0, err);
}

void qcow2_tables_free(struct qcow2_writer *writer)
{
    free(writer->l1);
    free(writer->l2);
}

int qcow2_tables_finish(struct qcow2_writer *writer, struct imgtk_error *err)
{
    int status = 0;
    if (writer->linear && writer->l1_entries)
        status = qcow2_tables_select(writer, (writer->l1_entries - 1) << writer->geometry.l2_bits, err);
    if (!status)
        status = close_table(writer, err);
    return status || !writer->l1_entries ? status : flush_l1(writer, err);
}
