/* Preallocation: every guest cluster has its place from the beginning, one behind the other. */
#include "writer.h"

static int lay_out(struct qcow2_writer *writer, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &writer->geometry;
    uint64_t data_clusters = writer->external ? 0 : qcow2_clusters(geometry, writer->size);
    int status = qcow2_clusters_take(&writer->clusters, writer->l1_entries,
                                     writer->l1_entries << geometry->cluster_bits, &writer->l2_tables_start, err);
    if (status || writer->external)
        return status;
    return qcow2_clusters_take(&writer->clusters, data_clusters, writer->size, &writer->data_start, err);
}

/* Metadata only: the data area just has to read as zeroes. */
static int clear(struct qcow2_writer *writer, struct imgtk_error *err)
{
    if (writer->reads_zero)
        return 0;
    return imgtk_storage_zero(writer->data, writer->data_start, writer->size, 0, err);
}

static int reserve(struct qcow2_writer *writer, const struct imgtk_create *args, struct imgtk_error *err)
{
    if (writer->reads_zero) {
        int status = imgtk_storage_allocate(writer->data, writer->data_start, writer->size, err);
        if (status == 0)
            args->note(args->note_context, "preallocation: the file system reserved the data area");
        if (status != IMGTK_EUNSUPPORTED)
            return status;
    }
    args->note(args->note_context, "preallocation: zeroes are written to the data area, since it cannot be reserved");
    return imgtk_storage_zero(writer->data, writer->data_start, writer->size, IMGTK_ZERO_ALLOCATE, err);
}

int qcow2_preallocate(struct qcow2_writer *writer, const struct imgtk_create *args,
                      const struct qcow2_create_options *options, struct imgtk_error *err)
{
    if (writer->size == 0)
        return 0;
    writer->linear = true;
    int status = lay_out(writer, err);
    if (status)
        return status;
    return options->preallocation == QCOW2_PREALLOCATION_METADATA ? clear(writer, err) : reserve(writer, args, err);
}
