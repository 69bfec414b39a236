/* Writing compressed clusters: compressed in the caller's thread, packed one behind the other. */
#include <stdlib.h>

#include "writer.h"

/* What became of each cluster. */
enum { STORED = 0, ZERO = UINT32_MAX }; /* any other value: the length of its stream */

struct packed {
    struct qcow2_input input;
    uint32_t *lengths;
    uint8_t *streams;                    /* one behind the other */
    struct qcow2_segments segments;
};

/* Compressors give up before the last byte of a tight buffer: they get room for more than is of use. */
static size_t slack(size_t cluster_size)
{
    return cluster_size / 64 + 512;
}

static int packed_init(struct packed *packed, const struct qcow2_geometry *geometry, const struct imgtk_write *write,
                       struct imgtk_error *err)
{
    int status = qcow2_input_init(&packed->input, geometry, write, err);
    if (status)
        return status;
    packed->lengths = malloc(packed->input.count * sizeof(*packed->lengths));
    packed->streams = malloc(packed->input.count * packed->input.cluster_size + slack(packed->input.cluster_size));
    if (!packed->lengths || !packed->streams)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for compression");
    return qcow2_segments_init(&packed->segments, packed->input.count, err);
}

static void packed_free(struct packed *packed)
{
    free(packed->segments.at);
    free(packed->streams);
    free(packed->lengths);
    qcow2_input_free(&packed->input);
}

static void pack_with(struct qcow2_writer *writer, struct packed *packed, struct imgtk_codec *const codecs[2])
{
    size_t cluster_size = packed->input.cluster_size;
    uint8_t *at = packed->streams;
    for (size_t i = 0; i < packed->input.count; i++) {
        const uint8_t *cluster = qcow2_input_cluster(&packed->input, i);
        size_t length = 0;
        if (!qcow2_zeroes_are_data(writer) && imgtk_is_zero(cluster, cluster_size)) {
            packed->lengths[i] = ZERO;
        } else if (writer->skips_noise && qcow2_is_noise(cluster, cluster_size)) {
            packed->lengths[i] = STORED;
        } else {
            struct imgtk_codec *codec = codecs[(packed->input.first + i) & 1];
            length = imgtk_codec_compress(codec, cluster, cluster_size, at, cluster_size + slack(cluster_size));
            if (length >= cluster_size)
                length = STORED;
            packed->lengths[i] = (uint32_t)length;
        }
        at += length;
    }
}

static int pack(struct qcow2_writer *writer, struct packed *packed, struct imgtk_error *err)
{
    struct imgtk_codec *codecs[2] = { imgtk_codec_take(writer->codecs[0]), imgtk_codec_take(writer->codecs[1]) };
    bool both = codecs[0] && codecs[1];
    if (both)
        pack_with(writer, packed, codecs);
    imgtk_codec_give(writer->codecs[0], codecs[0]);
    imgtk_codec_give(writer->codecs[1], codecs[1]);
    return both ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for compression");
}

static uint64_t compressed_entry(const struct qcow2_geometry *geometry, uint64_t host, uint64_t length)
{
    uint64_t further = (host + length - 1) / QCOW2_COMPRESSED_SECTOR - host / QCOW2_COMPRESSED_SECTOR;
    return QCOW2_COMPRESSED | further << geometry->compressed_shift | host;
}

static int map_stream(struct qcow2_writer *writer, struct packed *packed, size_t index, const uint8_t *stream,
                      struct imgtk_error *err)
{
    uint64_t guest = packed->input.first + index;
    uint32_t length = packed->lengths[index];
    uint64_t host;
    int status = qcow2_tables_select(writer, guest, err);
    if (!status)
        status = qcow2_clusters_take_bytes(&writer->clusters, length, &host, err);
    if (status)
        return status;
    qcow2_tables_set(writer, guest, compressed_entry(&writer->geometry, host, length), 0);
    qcow2_segments_add(&packed->segments, stream, host, length);
    return 0;
}

static int map_packed(struct qcow2_writer *writer, struct packed *packed, struct imgtk_error *err)
{
    const uint8_t *stream = packed->streams;
    int status = 0;
    for (size_t i = 0; !status && i < packed->input.count; i++) {
        if (packed->lengths[i] == ZERO) {
            status = qcow2_map_zero(writer, packed->input.first + i, err);
        } else if (packed->lengths[i] == STORED) {
            status = qcow2_map_data(writer, &packed->input, i, qcow2_subclusters(writer, &packed->input, i),
                                    &packed->segments, err);
        } else {
            status = map_stream(writer, packed, i, stream, err);
            stream += packed->lengths[i];
        }
    }
    return status;
}

static int pack_write(struct qcow2_writer *writer, const struct imgtk_write *write, struct packed *packed,
                      struct imgtk_error *err)
{
    int status = packed_init(packed, &writer->geometry, write, err);
    return status ? status : pack(writer, packed, err);
}

static int write_packed(struct qcow2_writer *writer, struct packed *packed, struct imgtk_turn *turn,
                        struct imgtk_error *err)
{
    int status = imgtk_turn_begin(turn, err);
    if (!status) {
        status = map_packed(writer, packed, err);
        imgtk_turn_end(turn);
    }
    return status ? status : qcow2_segments_write(&packed->segments, writer->data, err);
}

int qcow2_write_compressed(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct packed packed = { .lengths = NULL };
    int status = pack_write(writer, write, &packed, err);
    if (!status)
        status = write_packed(writer, &packed, write->turn, err);
    packed_free(&packed);
    return status;
}

int qcow2_prepare(void *handle, const struct imgtk_write *write, void **prepared, struct imgtk_error *err)
{
    struct qcow2_writer *writer = handle;
    *prepared = NULL;
    if (!writer->codecs[0])
        return 0;
    struct packed *packed = calloc(1, sizeof(*packed));
    if (!packed)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for compression");
    int status = pack_write(writer, write, packed, err);
    if (status)
        qcow2_discard(writer, packed);
    else
        *prepared = packed;
    return status;
}

int qcow2_write_prepared(void *handle, const struct imgtk_write *write, void *prepared, struct imgtk_error *err)
{
    int status = write_packed(handle, prepared, write->turn, err);
    qcow2_discard(handle, prepared);
    return status;
}

void qcow2_discard(void *handle, void *prepared)
{
    (void)handle;
    packed_free(prepared);
    free(prepared);
}
