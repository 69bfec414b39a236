/* Ending a new image: the last tables, then the header that makes it one. */
#include <stdlib.h>

#include "writer.h"

enum { COPY_CHUNK = 1 << 20 };

/* The file ends where what it holds ends; a device keeps its size. */
static int trim(struct qcow2_writer *writer, struct imgtk_error *err)
{
    if (imgtk_storage_flags(writer->file) & IMGTK_STORAGE_FIXED_SIZE)
        return 0;
    return imgtk_storage_truncate(writer->file, writer->clusters.end, err);
}

static int write_header(struct qcow2_writer *writer, struct imgtk_error *err)
{
    /* A new file has no name yet, but in an existing one a power cut must not leave a header before its tables. */
    if (!(imgtk_storage_flags(writer->file) & IMGTK_STORAGE_READS_ZERO)) {
        int status = imgtk_storage_flush(writer->file, err);
        if (status)
            return status;
    }
    qcow2_header_place(writer->header, &writer->places);
    return imgtk_storage_pwrite(writer->file, writer->header, writer->header_length, 0, err);
}

/* The temporary file, in order. */
static int send_spool(struct qcow2_writer *writer, struct imgtk_error *err)
{
    uint8_t *chunk = malloc(COPY_CHUNK);
    if (!chunk)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = 0;
    for (uint64_t at = 0; !status && at < writer->clusters.end;) {
        size_t length = (size_t)imgtk_min_u64(writer->clusters.end - at, COPY_CHUNK);
        status = imgtk_storage_pread(writer->file, chunk, length, at, err);
        if (!status)
            status = imgtk_storage_pwrite(writer->pipe, chunk, length, at, err);
        at += length;
    }
    free(chunk);
    return status;
}

int qcow2_finish(void *handle, struct imgtk_error *err)
{
    struct qcow2_writer *writer = handle;
    if (writer->stream)
        return qcow2_stream_finish(writer, err);
    int status = qcow2_tables_finish(writer, err);
    if (!status)
        status = qcow2_clusters_finish(&writer->clusters, &writer->places, err);
    if (!status)
        status = trim(writer, err);
    if (!status)
        status = write_header(writer, err);
    return status || !writer->pipe ? status : send_spool(writer, err);
}

void qcow2_writer_close(void *handle)
{
    struct qcow2_writer *writer = handle;
    qcow2_stream_free(writer->stream);
    qcow2_tables_free(writer);
    qcow2_clusters_free(&writer->clusters);
    imgtk_codec_pool_free(writer->codecs[0]);
    imgtk_codec_pool_free(writer->codecs[1]);
    if (writer->pipe)
        imgtk_storage_close(writer->file);
    free(writer->header);
    free(writer);
}
