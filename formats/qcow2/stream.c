/*
 * A plain image in one pass: the plan says which clusters there will be, so
 * all tables can go first, and the data follow in guest order. Planned
 * clusters that turn out to be zero are written as zeroes: their places were
 * given away already.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "writer.h"

struct qcow2_stream {
    struct imgtk_storage *pipe;
    struct imgtk_plan *plan;             /* NULL: nothing will be written */
    uint64_t size;                       /* of the guest as the plan knows it */
    bool full;                           /* everything is planned */
    uint64_t at;                         /* bytes of the file that were written */
    uint64_t next, run_end;              /* the planned guest bytes that come next; equal: ask for another run */
    uint64_t l2_tables, data_clusters;
    uint8_t *cluster;                    /* scratch, one cluster */
};

bool qcow2_stream_in_order(const struct imgtk_create *args, const struct qcow2_create_options *options)
{
    return (args->flags & IMGTK_CREATE_STREAM) && !(args->flags & IMGTK_CREATE_COMPRESS) && !options->backing_file &&
           !options->data_file && options->preallocation == QCOW2_PREALLOCATION_OFF;
}

static int emit(struct qcow2_stream *stream, const void *buf, size_t length, struct imgtk_error *err)
{
    int status = imgtk_storage_pwrite(stream->pipe, buf, length, stream->at, err);
    stream->at += length;
    return status;
}

/* The first planned run at or after offset; *end 0: no more. */
static int next_run(const struct qcow2_stream *stream, uint64_t unit, uint64_t offset, uint64_t *start, uint64_t *end,
                    struct imgtk_error *err)
{
    *start = *end = 0;
    if (offset >= stream->size)
        return 0;
    if (stream->full) {
        *start = offset;
        *end = stream->size;
        return 0;
    }
    if (!stream->plan)
        return 0;
    uint64_t length;
    int status = imgtk_plan_next(stream->plan, unit, offset, start, &length, err);
    *end = !status && length ? *start + length : 0;
    return status;
}

/* ---- Tables ------------------------------------------------------------- */

/* Walks the plan; calls `table` for each L2 table that is needed and `clusters` for each of its runs, when not NULL. */
struct visitor {
    int (*table)(struct qcow2_writer *writer, struct visitor *visitor, uint64_t index, struct imgtk_error *err);
    void (*clusters)(struct qcow2_writer *writer, struct visitor *visitor, uint64_t guest, uint64_t count);
    uint64_t index;                      /* of the open table; UINT64_MAX: none */
    uint64_t tables, data;               /* counted so far */
    uint64_t first_table, first_data;    /* host offsets */
    uint64_t l1_done;                    /* entries of the L1 table that were written */
};

static int visit_run(struct qcow2_writer *writer, struct visitor *visitor, uint64_t guest, uint64_t end,
                     struct imgtk_error *err)
{
    unsigned bits = writer->geometry.l2_bits;
    while (guest < end) {
        if (guest >> bits != visitor->index) {
            int status = visitor->table ? visitor->table(writer, visitor, guest >> bits, err) : 0;
            if (status)
                return status;
            visitor->index = guest >> bits;
            visitor->tables++;
        }
        uint64_t count = imgtk_min_u64(end, (visitor->index + 1) << bits) - guest;
        if (visitor->clusters)
            visitor->clusters(writer, visitor, guest, count);
        visitor->data += count;
        guest += count;
    }
    return 0;
}

static int visit(struct qcow2_writer *writer, struct visitor *visitor, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &writer->geometry;
    uint64_t start, end = 0;
    visitor->index = UINT64_MAX;
    for (;;) {
        int status = next_run(writer->stream, geometry->cluster_size, end, &start, &end, err);
        if (!status && end)
            status = visit_run(writer, visitor, start >> geometry->cluster_bits, qcow2_clusters(geometry, end), err);
        if (status || !end)
            return status;
    }
}

static int pad_to_cluster(struct qcow2_writer *writer, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    size_t rest = (size_t)(imgtk_round_up(stream->at, writer->geometry.cluster_size) - stream->at);
    memset(stream->cluster, 0, rest);
    return rest ? emit(stream, stream->cluster, rest, err) : 0;
}

/* L1 entries up to, not including, `index` are those of tables that do not exist. */
static int fill_l1(struct qcow2_writer *writer, struct visitor *visitor, uint64_t index, struct imgtk_error *err)
{
    static const uint8_t zeroes[4096];
    int status = 0;
    while (!status && visitor->l1_done < index) {
        uint64_t count = imgtk_min_u64(index - visitor->l1_done, sizeof(zeroes) / sizeof(uint64_t));
        status = emit(writer->stream, zeroes, count * sizeof(uint64_t), err);
        visitor->l1_done += count;
    }
    return status;
}

static int put_l1_entry(struct qcow2_writer *writer, struct visitor *visitor, uint64_t index, struct imgtk_error *err)
{
    uint8_t entry[sizeof(uint64_t)];
    imgtk_put_be64(entry, (visitor->first_table + (visitor->tables << writer->geometry.cluster_bits)) | QCOW2_COPIED);
    int status = fill_l1(writer, visitor, index, err);
    if (!status)
        status = emit(writer->stream, entry, sizeof(entry), err);
    visitor->l1_done++;
    return status;
}

static int put_l1(struct qcow2_writer *writer, uint64_t first_table, struct imgtk_error *err)
{
    struct visitor visitor = { .table = put_l1_entry, .first_table = first_table };
    int status = visit(writer, &visitor, err);
    if (!status)
        status = fill_l1(writer, &visitor, writer->l1_entries, err);
    return status ? status : pad_to_cluster(writer, err);
}

static int put_l2_table(struct qcow2_writer *writer, struct visitor *visitor, uint64_t index, struct imgtk_error *err)
{
    (void)index;
    size_t cluster_size = writer->geometry.cluster_size;
    int status = visitor->tables ? emit(writer->stream, writer->stream->cluster, cluster_size, err) : 0;
    memset(writer->stream->cluster, 0, cluster_size);
    return status;
}

static void put_l2_entries(struct qcow2_writer *writer, struct visitor *visitor, uint64_t guest, uint64_t count)
{
    const struct qcow2_geometry *geometry = &writer->geometry;
    uint64_t first = guest & ((UINT64_C(1) << geometry->l2_bits) - 1);
    uint8_t *at = writer->stream->cluster + first * geometry->l2_entry_bytes;
    uint64_t host = visitor->first_data + (visitor->data << geometry->cluster_bits);
    for (uint64_t i = 0; i < count; i++, at += geometry->l2_entry_bytes, host += geometry->cluster_size) {
        imgtk_put_be64(at, host | QCOW2_COPIED);
        if (geometry->extended_l2)
            imgtk_put_be64(at + sizeof(uint64_t), UINT32_MAX);
    }
}

static int put_l2(struct qcow2_writer *writer, uint64_t first_data, struct imgtk_error *err)
{
    struct visitor visitor = { .table = put_l2_table, .clusters = put_l2_entries, .first_data = first_data };
    int status = visit(writer, &visitor, err);
    return status || !visitor.tables ? status : put_l2_table(writer, &visitor, 0, err);
}

static int put_refcounts(struct qcow2_writer *writer, uint64_t clusters, const struct qcow2_refcount_clusters *counts,
                         struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &writer->geometry;
    struct qcow2_stream *stream = writer->stream;
    uint64_t first_block = (1 + counts->table) << geometry->cluster_bits;
    int status = 0;
    for (uint64_t i = 0; !status && i < counts->blocks; i++) {
        uint8_t entry[sizeof(uint64_t)];
        imgtk_put_be64(entry, first_block + (i << geometry->cluster_bits));
        status = emit(stream, entry, sizeof(entry), err);
    }
    if (!status)
        status = pad_to_cluster(writer, err);
    for (uint64_t i = 0; !status && i < counts->blocks; i++) {
        uint64_t per_block = UINT64_C(1) << geometry->refcount_block_bits;
        uint64_t count = imgtk_min_u64(clusters - i * per_block, per_block);
        memset(stream->cluster, 0, geometry->cluster_size);
        for (uint64_t j = 0; j < count; j++)
            qcow2_refcount_put(stream->cluster, j, geometry->refcount_order, 1);
        status = emit(stream, stream->cluster, geometry->cluster_size, err);
    }
    return status;
}

static int put_header(struct qcow2_writer *writer, const struct qcow2_refcount_clusters *counts,
                      struct imgtk_error *err)
{
    uint64_t cluster_size = writer->geometry.cluster_size;
    writer->places.refcount_table_offset = cluster_size;
    writer->places.refcount_table_clusters = (uint32_t)counts->table;
    writer->places.l1_offset = (1 + counts->table + counts->blocks) * cluster_size;
    qcow2_header_place(writer->header, &writer->places);
    int status = emit(writer->stream, writer->header, writer->header_length, err);
    return status ? status : pad_to_cluster(writer, err);
}

static int put_tables(struct qcow2_writer *writer, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &writer->geometry;
    struct visitor census = { 0 };
    int status = visit(writer, &census, err);
    if (status)
        return status;
    uint64_t l1_clusters = qcow2_clusters(geometry, writer->l1_entries * sizeof(uint64_t));
    uint64_t clusters = 1 + l1_clusters + census.tables + census.data;
    struct qcow2_refcount_clusters counts = qcow2_refcount_clusters(geometry, clusters);
    if (counts.table << geometry->cluster_bits > QCOW2_MAX_REFCOUNT_TABLE_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT,
                          "the image needs a refcount table of more than %" PRIu64 " bytes: use a larger cluster size",
                          QCOW2_MAX_REFCOUNT_TABLE_BYTES);
    status = put_header(writer, &counts, err);
    if (!status)
        status = put_refcounts(writer, clusters + counts.blocks + counts.table, &counts, err);
    uint64_t first_table = writer->places.l1_offset + (l1_clusters << geometry->cluster_bits);
    if (!status)
        status = put_l1(writer, first_table, err);
    return status ? status : put_l2(writer, first_table + (census.tables << geometry->cluster_bits), err);
}

int qcow2_stream_begin(struct qcow2_writer *writer, const struct imgtk_create *args, struct imgtk_error *err)
{
    struct qcow2_stream *stream = calloc(1, sizeof(*stream));
    writer->stream = stream;
    if (stream)
        stream->cluster = malloc(writer->geometry.cluster_size);
    if (!stream || !stream->cluster)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    stream->pipe = args->file;
    stream->plan = args->plan;
    stream->size = args->size;
    stream->full = writer->full;
    writer->l1_entries = qcow2_l1_entries(&writer->geometry, writer->size);
    args->note(args->note_context, "one pass in file order: planned clusters are written even where they are zero");
    return put_tables(writer, err);
}

/* ---- Data --------------------------------------------------------------- */

static int emit_zeroes(struct qcow2_writer *writer, uint64_t length, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    size_t cluster_size = writer->geometry.cluster_size;
    memset(stream->cluster, 0, cluster_size);
    int status = 0;
    while (!status && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, cluster_size);
        status = emit(stream, stream->cluster, piece, err);
        length -= piece;
    }
    return status;
}

/* The next planned run, when the current one is used up. */
static int refill(struct qcow2_writer *writer, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    if (stream->next < stream->run_end)
        return 0;
    uint64_t start, end;
    int status = next_run(stream, writer->geometry.cluster_size, stream->run_end, &start, &end, err);
    if (status)
        return status;
    stream->next = end ? start : stream->size;
    stream->run_end = end ? end : stream->size;
    return 0;
}

/* Zeroes for the planned clusters before `offset` that nobody wrote. */
static int skip_to(struct qcow2_writer *writer, uint64_t offset, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    int status = refill(writer, err);
    while (!status && stream->next < offset) {
        uint64_t gap = imgtk_min_u64(stream->run_end, offset) - stream->next;
        status = emit_zeroes(writer, gap, err);
        stream->next += gap;
        if (!status)
            status = refill(writer, err);
    }
    return status;
}

static int write_planned(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    const uint8_t *buf = write->buf;
    uint64_t offset = write->offset;
    uint64_t end = offset + write->length;
    int status = skip_to(writer, offset, err);
    while (!status && offset < end) {
        if (stream->next != offset || stream->next == stream->run_end)
            return imgtk_fail(err, IMGTK_EINVAL, "data at byte %" PRIu64 " are not in the plan", offset);
        size_t piece = (size_t)(imgtk_min_u64(end, stream->run_end) - offset);
        status = emit(stream, buf, piece, err);
        buf += piece;
        offset += piece;
        stream->next = offset;
        if (!status)
            status = refill(writer, err);
    }
    return status;
}

int qcow2_stream_write(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(write->turn, err);
    if (status)
        return status;
    status = write_planned(writer, write, err);
    imgtk_turn_end(write->turn);
    return status;
}

int qcow2_stream_finish(struct qcow2_writer *writer, struct imgtk_error *err)
{
    struct qcow2_stream *stream = writer->stream;
    int status = skip_to(writer, stream->size, err);
    size_t rest = (size_t)(imgtk_round_up(stream->at, QCOW2_COMPRESSED_SECTOR) - stream->at);
    return status || !rest ? status : emit_zeroes(writer, rest, err);
}

void qcow2_stream_free(struct qcow2_stream *stream)
{
    if (!stream)
        return;
    free(stream->cluster);
    free(stream);
}
