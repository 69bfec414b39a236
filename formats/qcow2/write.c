/* Writing plain clusters and zeroes. */
#include <stdlib.h>

#include "writer.h"

bool qcow2_zeroes_are_data(const struct qcow2_writer *writer)
{
    return writer->full || (writer->has_backing && writer->version < 3);
}

/* Whether writing changes no table, since all of them are known from the beginning. */
static bool tables_are_settled(const struct qcow2_writer *writer)
{
    return writer->linear && !writer->has_backing;
}

uint32_t qcow2_subclusters(const struct qcow2_writer *writer, const struct qcow2_input *input, size_t index)
{
    if (qcow2_zeroes_are_data(writer))
        return UINT32_MAX;
    const uint8_t *cluster = qcow2_input_cluster(input, index);
    if (!writer->geometry.extended_l2)
        return imgtk_is_zero(cluster, input->cluster_size) ? 0 : 1;
    size_t size = (size_t)1 << writer->geometry.subcluster_bits;
    uint32_t bits = 0;
    for (unsigned i = 0; i < QCOW2_SUBCLUSTERS; i++)
        if (!imgtk_is_zero(cluster + i * size, size))
            bits |= UINT32_C(1) << i;
    return bits;
}

static int place_data(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t count, uint64_t bytes,
                      uint64_t *host, struct imgtk_error *err)
{
    if (writer->linear || writer->external) {
        *host = writer->data_start + (guest_cluster << writer->geometry.cluster_bits);
        return 0;
    }
    return qcow2_clusters_take(&writer->clusters, count, imgtk_round_up(bytes, QCOW2_COMPRESSED_SECTOR), host, err);
}

/* Allocated subclusters are data; the others hide the backing file. */
static uint64_t data_bitmap(const struct qcow2_writer *writer, uint32_t subclusters)
{
    return subclusters | (writer->has_backing ? (uint64_t)(uint32_t)~subclusters << QCOW2_SUBCLUSTERS : 0);
}

/* The bytes of a cluster that have to be written, which begin and end where data do. */
struct stretch {
    size_t begin, end;
    size_t mapped;      /* what the entry says is data ends here: the file must not end before */
};

/* Zero subclusters between data cost less than more writes. */
static struct stretch find_stretch(const struct qcow2_writer *writer, const struct qcow2_input *input, size_t index,
                                   uint32_t subclusters)
{
    enum { BLOCK = 4096 };
    struct stretch stretch = { .end = qcow2_input_bytes(input, index) };
    if (writer->geometry.extended_l2) {
        unsigned bits = writer->geometry.subcluster_bits;
        size_t last = (size_t)(32 - __builtin_clz(subclusters)) << bits;
        stretch.begin = (size_t)__builtin_ctz(subclusters) << bits;
        stretch.end = last < stretch.end ? last : stretch.end;
    }
    if (!writer->reads_zero)
        stretch.end = imgtk_round_up(stretch.end, input->cluster_size);
    stretch.mapped = stretch.end;
    if (!writer->reads_zero || qcow2_zeroes_are_data(writer))
        return stretch;
    const uint8_t *cluster = qcow2_input_cluster(input, index);
    while (stretch.end > stretch.begin + BLOCK) {
        size_t block = (stretch.end - 1) / BLOCK * BLOCK;
        if (!imgtk_is_zero(cluster + block, stretch.end - block))
            break;
        stretch.end = block;
    }
    return stretch;
}

int qcow2_map_data(struct qcow2_writer *writer, const struct qcow2_input *input, size_t index, uint32_t subclusters,
                   struct qcow2_segments *segments, struct imgtk_error *err)
{
    struct stretch stretch = find_stretch(writer, input, index, subclusters);
    uint64_t guest = input->first + index;
    uint64_t host;
    int status = qcow2_tables_select(writer, guest, err);
    if (!status)
        status = place_data(writer, guest, 1, stretch.mapped, &host, err);
    if (status)
        return status;
    qcow2_tables_set(writer, guest, host | QCOW2_COPIED, data_bitmap(writer, subclusters));
    qcow2_segments_add(segments, qcow2_input_cluster(input, index) + stretch.begin, host + stretch.begin,
                       stretch.end - stretch.begin);
    return 0;
}

int qcow2_map_zero(struct qcow2_writer *writer, uint64_t guest_cluster, struct imgtk_error *err)
{
    if (!writer->has_backing)
        return 0;
    int status = qcow2_tables_select(writer, guest_cluster, err);
    if (status)
        return status;
    uint64_t place = writer->linear
                         ? (writer->data_start + (guest_cluster << writer->geometry.cluster_bits)) | QCOW2_COPIED
                         : 0;
    if (writer->geometry.extended_l2)
        qcow2_tables_set(writer, guest_cluster, place, (uint64_t)UINT32_MAX << QCOW2_SUBCLUSTERS);
    else
        qcow2_tables_set(writer, guest_cluster, QCOW2_ZERO, 0);
    return 0;
}

static int map_input(struct qcow2_writer *writer, const struct qcow2_input *input, const uint32_t *subclusters,
                     struct qcow2_segments *segments, struct imgtk_error *err)
{
    int status = 0;
    for (size_t i = 0; !status && i < input->count; i++)
        status = subclusters[i] ? qcow2_map_data(writer, input, i, subclusters[i], segments, err)
                                : qcow2_map_zero(writer, input->first + i, err);
    return status;
}

static int write_input(struct qcow2_writer *writer, const struct qcow2_input *input, struct imgtk_turn *turn,
                       struct qcow2_segments *segments, uint32_t *subclusters, struct imgtk_error *err)
{
    for (size_t i = 0; i < input->count; i++)
        subclusters[i] = qcow2_subclusters(writer, input, i);
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    status = map_input(writer, input, subclusters, segments, err);
    imgtk_turn_end(turn);
    return status ? status : qcow2_segments_write(segments, writer->data, err);
}

static int write_plain(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct qcow2_input input;
    struct qcow2_segments segments = { NULL, 0 };
    int status = qcow2_input_init(&input, &writer->geometry, write, err);
    if (status)
        return status;
    uint32_t *subclusters = malloc(input.count * sizeof(*subclusters));
    if (!subclusters)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (!status)
        status = qcow2_segments_init(&segments, input.count, err);
    if (!status)
        status = write_input(writer, &input, write->turn, &segments, subclusters, err);
    free(segments.at);
    free(subclusters);
    qcow2_input_free(&input);
    return status;
}

int qcow2_write(void *handle, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct qcow2_writer *writer = handle;
    if (writer->stream)
        return qcow2_stream_write(writer, write, err);
    if (writer->codecs[0])
        return qcow2_write_compressed(writer, write, err);
    if (tables_are_settled(writer))
        return imgtk_storage_pwrite(writer->data, write->buf, write->length, writer->data_start + write->offset, err);
    return write_plain(writer, write, err);
}

/* Maps `count` guest clusters to adjoining host clusters. */
static int map_run(struct qcow2_writer *writer, uint64_t guest, uint64_t count, uint64_t host, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t i = 0; !status && i < count; i++) {
        status = qcow2_tables_select(writer, guest + i, err);
        uint64_t at = host + (i << writer->geometry.cluster_bits);
        if (!status)
            qcow2_tables_set(writer, guest + i, at | QCOW2_COPIED, UINT32_MAX);
    }
    return status;
}

int qcow2_place(void *handle, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
                struct imgtk_error *err)
{
    struct qcow2_writer *writer = handle;
    bool padded = write->length % writer->geometry.cluster_size != 0 && !writer->reads_zero && !writer->external;
    if (writer->stream || writer->codecs[0] || padded)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "these data have no place for a plain copy");
    *file = writer->data;
    if (tables_are_settled(writer)) {
        *host_offset = writer->data_start + write->offset;
        return 0;
    }
    uint64_t guest = write->offset >> writer->geometry.cluster_bits;
    uint64_t count = qcow2_clusters(&writer->geometry, write->length);
    int status = imgtk_turn_begin(write->turn, err);
    if (status)
        return status;
    status = qcow2_tables_select(writer, guest, err);
    if (!status)
        status = place_data(writer, guest, count, write->length, host_offset, err);
    if (!status)
        status = map_run(writer, guest, count, *host_offset, err);
    imgtk_turn_end(write->turn);
    return status;
}

/* Clusters of one L2 table that hold zeroes as data. */
static int allocate_zeroes(struct qcow2_writer *writer, uint64_t guest, uint64_t count, struct imgtk_error *err)
{
    uint64_t length = count << writer->geometry.cluster_bits;
    uint64_t host;
    int status = qcow2_tables_select(writer, guest, err);
    if (!status)
        status = place_data(writer, guest, count, length, &host, err);
    if (!status)
        status = map_run(writer, guest, count, host, err);
    if (status || (writer->reads_zero && !writer->full))
        return status;
    return imgtk_storage_zero(writer->data, host, length, writer->full ? IMGTK_ZERO_ALLOCATE : 0, err);
}

static int map_zeroes(struct qcow2_writer *writer, uint64_t guest, uint64_t end, struct imgtk_error *err)
{
    uint64_t per_table = UINT64_C(1) << writer->geometry.l2_bits;
    int status = 0;
    while (!status && guest < end) {
        uint64_t count = imgtk_min_u64(end - guest, per_table - (guest & (per_table - 1)));
        if (qcow2_zeroes_are_data(writer))
            status = allocate_zeroes(writer, guest, count, err);
        for (uint64_t i = 0; !status && !qcow2_zeroes_are_data(writer) && i < count; i++)
            status = qcow2_map_zero(writer, guest + i, err);
        guest += count;
    }
    return status;
}

int qcow2_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct qcow2_writer *writer = handle;
    /* What a pipe got is zero where nothing was written, and so is what was preallocated. */
    if (writer->stream || tables_are_settled(writer) || (!writer->has_backing && !writer->full))
        return 0;
    uint64_t guest = offset >> writer->geometry.cluster_bits;
    uint64_t end = qcow2_clusters(&writer->geometry, offset + length);
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    status = map_zeroes(writer, guest, end, err);
    imgtk_turn_end(turn);
    return status;
}
