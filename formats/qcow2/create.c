/* Beginning a new image: options, target, first tables. */
#include <stdlib.h>
#include <string.h>

#include "writer.h"

static bool reads_zero(const struct imgtk_storage *storage)
{
    return (imgtk_storage_flags(storage) & IMGTK_STORAGE_READS_ZERO) != 0;
}

static int open_data_file(struct qcow2_writer *writer, const struct imgtk_create *args, const char *name,
                          struct imgtk_error *err)
{
    writer->data = writer->file;
    if (!name)
        return 0;
    writer->external = true;
    int status = imgtk_reference_create(args->refs, name, &writer->data, err);
    return status ? status : imgtk_storage_truncate(writer->data, writer->size, err);
}

/*
 * Tables cannot go first when sizes are not known before all data have been
 * seen, and a pipe takes nothing out of order: the image is made in a
 * temporary file, whose bytes follow at the end.
 */
static int open_spool(struct qcow2_writer *writer, const struct imgtk_create *args, struct imgtk_error *err)
{
    if (!(args->flags & IMGTK_CREATE_STREAM))
        return 0;
    int status = imgtk_reference_spool(args->refs, &writer->file, err);
    if (status)
        return status;
    writer->pipe = args->file;
    args->note(args->note_context, "the image is spooled to a temporary file: its tables come first in a pipe, but are "
                                   "not known before all data have been seen");
    return 0;
}

/*
 * Levels of libdeflate, for every other cluster each, whose files are no larger than QEMU's for an operating system (in
 * clusters of 512 bytes they are up to 0.5 % larger, and programs alone in clusters of 64 KiB 1 %); the numbers are in
 * docs/performance.md. In clusters of 64 KiB the first level is five times as fast as QEMU, but not always smaller; the
 * second one needs 1.4 times the time. The smaller the clusters, the less there is to be found in them, and the less of
 * the time goes into the search. libdeflate has levels to 12, zlib to 9.
 */
static void default_levels(enum imgtk_codec_kind kind, uint64_t cluster_size, unsigned levels[2])
{
    static const struct {
        uint64_t up_to;
        unsigned levels[2];
    } chosen[] = { { 8 << 10, { 6, 6 } }, { 16 << 10, { 4, 4 } }, { 32 << 10, { 2, 2 } }, { UINT64_MAX, { 1, 2 } } };
    size_t i = 0;
    levels[0] = levels[1] = 0;
    if (kind != IMGTK_CODEC_DEFLATE || imgtk_codec_levels(kind).max <= 9)
        return;
    while (cluster_size > chosen[i].up_to)
        i++;
    memcpy(levels, chosen[i].levels, sizeof(chosen[i].levels));
}

static int open_codecs(struct qcow2_writer *writer, const struct imgtk_create *args,
                       const struct qcow2_create_options *options, struct imgtk_error *err)
{
    if (!(args->flags & IMGTK_CREATE_COMPRESS))
        return 0;
    bool zstd = options->compression_type == QCOW2_COMPRESSION_ZSTD;
    enum imgtk_codec_kind kind = zstd ? IMGTK_CODEC_ZSTD : IMGTK_CODEC_DEFLATE;
    writer->skips_noise = !zstd;
    unsigned levels[2] = { options->compression_level, options->compression_level };
    if (!options->compression_level)
        default_levels(kind, writer->geometry.cluster_size, levels);
    int status = imgtk_codec_pool_new(kind, levels[0], &writer->codecs[0], err);
    return status ? status : imgtk_codec_pool_new(kind, levels[1], &writer->codecs[1], err);
}

/* An image that was there before must not be taken for the one that is being written. */
static int invalidate(struct qcow2_writer *writer, struct imgtk_error *err)
{
    if (reads_zero(writer->file))
        return 0;
    return imgtk_storage_zero(writer->file, 0, writer->geometry.cluster_size, 0, err);
}

static int begin_tables(struct qcow2_writer *writer, const struct imgtk_create *args,
                        const struct qcow2_create_options *options, struct imgtk_error *err)
{
    int status = open_spool(writer, args, err);
    if (!status)
        status = open_data_file(writer, args, options->data_file, err);
    if (status)
        return status;
    writer->reads_zero = reads_zero(writer->data);
    bool preallocate = options->preallocation != QCOW2_PREALLOCATION_OFF;
    if (!preallocate && !options->data_file)
        imgtk_storage_will_append(writer->file);
    status = invalidate(writer, err);
    if (!status)
        status = qcow2_clusters_init(&writer->clusters, writer->file, &writer->geometry, err);
    if (!status)
        status = qcow2_tables_init(writer, err);
    if (!status && preallocate)
        status = qcow2_preallocate(writer, args, options, err);
    return status;
}

static void take_options(struct qcow2_writer *writer, const struct imgtk_create *args,
                         const struct qcow2_create_options *options)
{
    writer->file = args->file;
    writer->size = options->size;
    writer->version = options->version;
    writer->geometry = options->geometry;
    writer->has_backing = options->backing_file != NULL;
    writer->full = (args->flags & IMGTK_CREATE_FULL) != 0;
}

static int begin(struct qcow2_writer *writer, const struct imgtk_create *args,
                 const struct qcow2_create_options *options, struct imgtk_error *err)
{
    take_options(writer, args, options);
    int status = qcow2_header_build(options, &writer->header, &writer->header_length, err);
    if (!status)
        status = open_codecs(writer, args, options, err);
    if (status)
        return status;
    if (qcow2_stream_in_order(args, options))
        return qcow2_stream_begin(writer, args, err);
    return begin_tables(writer, args, options, err);
}

int qcow2_create(struct imgtk_create *args, void **out, struct imgtk_error *err)
{
    struct qcow2_create_options options;
    int status = qcow2_options_read(args, &options, err);
    if (status)
        return status;
    struct qcow2_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    status = begin(writer, args, &options, err);
    if (status) {
        qcow2_writer_close(writer);
        return status;
    }
    if (options.size != args->size)
        args->note(args->note_context, "the size is rounded up to a multiple of 512 bytes");
    args->unit = (uint32_t)options.geometry.cluster_size;
    *out = writer;
    return 0;
}
