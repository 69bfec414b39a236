#include "map_rows.h"

#include <imgtk/bytes.h>
#include <imgtk/info.h>
#include <stdio.h>
#include <string.h>

#include "output.h"
#include "picture/text.h"

#define HUMAN_COLUMN 16
#define DEPTH_COLUMN 8
#define DEFAULT_CLUSTER_BITS 16 /* of formats that have no clusters: raw */

/* ---- The buffer ----------------------------------------------------------- */

void map_rows_flush(struct map_rows *rows)
{
    fwrite(rows->buffer, 1, rows->used, stdout);
    rows->used = 0;
}

static char *reserve(struct map_rows *rows)
{
    if (rows->used + MAP_ROW_MAX > sizeof rows->buffer)
        map_rows_flush(rows);
    return rows->buffer + rows->used;
}

static void commit(struct map_rows *rows, const char *end)
{
    rows->used = (size_t)(end - rows->buffer);
}

#define PUT_LITERAL(at, literal) ((char *)memcpy((at), "" literal, sizeof literal - 1) + (sizeof literal - 1))

static char *put_bool(char *at, bool value)
{
    return value ? PUT_LITERAL(at, "true") : PUT_LITERAL(at, "false");
}

static void put_text(struct map_rows *rows, const char *text)
{
    char *at = reserve(rows);
    commit(rows, (char *)memcpy(at, text, strlen(text)) + strlen(text));
}

static unsigned log2_of(uint64_t value)
{
    unsigned bits = 0;
    while (value >> bits > 1)
        bits++;
    return bits;
}

/* What counting in clusters needs to know of the layer. */
static int describe_layer(struct map_rows *rows, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = imgtk_image_layer(rows->image, 0);
    struct imgtk_layer_info info;
    struct imgtk_backing backing = { .names = { NULL } };
    int status = imgtk_layer_describe(layer, &info, err);
    if (status == 0) {
        imgtk_info_free(info.specific);
        imgtk_info_free(info.snapshots);
        status = layer->driver->backing(layer->handle, &backing, err);
    }
    if (status)
        return imgtk_fail_prefix(err, "%s", layer->name);
    rows->cluster_bits = imgtk_is_power_of_two(info.cluster_size) ? log2_of(info.cluster_size) : DEFAULT_CLUSTER_BITS;
    rows->has_backing = backing.names[0] != NULL;
    return 0;
}

int map_rows_begin(struct map_rows *rows, uint64_t start, struct imgtk_error *err)
{
    rows->start = start;
    if (rows->form->in_clusters) {
        int status = describe_layer(rows, err);
        if (status)
            return status;
    }
    rows->form->begin(rows);
    return 0;
}

/* ---- For people ----------------------------------------------------------- */

static void human_begin(struct map_rows *rows)
{
    put_text(rows, rows->depths ? "Offset          Length          Mapped to       Depth   File\n"
                                : "Offset          Length          Mapped to       File\n");
}

static char *put_column(char *at, uint64_t value)
{
    char *end = cli_put_u64(at, value), *column = at + DEPTH_COLUMN;
    if (end >= column)
        column = end + 1;
    memset(end, ' ', (size_t)(column - end));
    return column;
}

/* A file name, as cli_put_text() has it. */
static void put_name(struct map_rows *rows, const char *name)
{
    while (*name) {
        char *at = reserve(rows);
        const char *from = name;
        if (text_pass(&name))
            at = (char *)memcpy(at, from, (size_t)(name - from)) + (name - from);
        else
            *at++ = '?';
        commit(rows, at);
    }
}

static int human_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_rows *rows = context;
    bool plain = row->extent.flags & IMGTK_EXTENT_PLAIN;
    if (row->extent.kind != IMGTK_EXTENT_DATA)
        return 0;
    char *at = cli_put_hex(reserve(rows), row->start, HUMAN_COLUMN);
    at = cli_put_hex(at, row->extent.length, HUMAN_COLUMN);
    if (plain)
        at = cli_put_hex(at, row->extent.host_offset, HUMAN_COLUMN);
    else if (row->extent.flags & IMGTK_EXTENT_COMPRESSED)
        at = PUT_LITERAL(at, "compressed      ");
    else
        at = PUT_LITERAL(at, "not plain       ");
    if (rows->depths)
        at = put_column(at, row->allocation_depth);
    commit(rows, at);
    put_name(rows, plain ? imgtk_storage_name(row->extent.file) : imgtk_image_layer(rows->image, row->depth)->name);
    put_text(rows, "\n");
    return 0;
}

static void human_end(struct map_rows *rows)
{
    (void)rows;
}

const struct map_form map_form_human = { false, false, human_begin, human_row, human_end };

/* ---- qemu-img's JSON ------------------------------------------------------ */

static void json_begin(struct map_rows *rows)
{
    put_text(rows, "[");
}

static int json_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_rows *rows = context;
    char *at = reserve(rows);
    if (rows->rows++ > 0)
        at = PUT_LITERAL(at, ",\n");
    at = PUT_LITERAL(at, "{ \"start\": ");
    at = cli_put_u64(at, row->start);
    at = PUT_LITERAL(at, ", \"length\": ");
    at = cli_put_u64(at, row->extent.length);
    at = PUT_LITERAL(at, ", \"depth\": ");
    at = cli_put_u64(at, row->depth);
    at = PUT_LITERAL(at, ", \"present\": ");
    at = put_bool(at, row->present);
    at = PUT_LITERAL(at, ", \"zero\": ");
    at = put_bool(at, row->extent.kind == IMGTK_EXTENT_ZERO);
    at = PUT_LITERAL(at, ", \"data\": ");
    /* Data that lie in a hole of the storage are both, as qemu-img has it. */
    at = put_bool(at, row->extent.kind == IMGTK_EXTENT_DATA || row->extent.flags & IMGTK_EXTENT_STORAGE_HOLE);
    at = PUT_LITERAL(at, ", \"compressed\": ");
    at = put_bool(at, row->extent.flags & IMGTK_EXTENT_COMPRESSED);
    if (row->extent.flags & IMGTK_EXTENT_PLAIN) {
        at = PUT_LITERAL(at, ", \"offset\": ");
        at = cli_put_u64(at, row->extent.host_offset);
    }
    if (rows->depths) {
        at = PUT_LITERAL(at, ", \"allocation-depth\": ");
        at = cli_put_u64(at, row->allocation_depth);
    }
    *at++ = '}';
    commit(rows, at);
    return 0;
}

/* Nothing to tell is one row of no length, as qemu-img prints it. */
static void json_end(struct map_rows *rows)
{
    if (rows->rows == 0 && !rows->differences) {
        struct imgtk_chain_extent none = { .start = rows->start, .extent = { .kind = IMGTK_EXTENT_BACKING } };
        json_row(rows, &none);
    }
    put_text(rows, "]\n");
}

const struct map_form map_form_json = { false, false, json_begin, json_row, json_end };

/* ---- One object per line -------------------------------------------------- */

static void jsonl_nothing(struct map_rows *rows)
{
    (void)rows;
}

static int jsonl_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_rows *rows = context;
    char *at = PUT_LITERAL(reserve(rows), "{\"start\":");
    at = cli_put_u64(at, row->start);
    at = PUT_LITERAL(at, ",\"length\":");
    at = cli_put_u64(at, row->extent.length);
    at = PUT_LITERAL(at, ",\"allocated\":");
    at = put_bool(at, row->present);
    at = PUT_LITERAL(at, ",\"zero\":");
    at = put_bool(at, row->extent.kind == IMGTK_EXTENT_ZERO);
    at = PUT_LITERAL(at, ",\"compressed\":");
    at = put_bool(at, row->extent.flags & IMGTK_EXTENT_COMPRESSED);
    if (rows->depths) {
        at = PUT_LITERAL(at, ",\"allocation_depth\":");
        at = cli_put_u64(at, row->allocation_depth);
    }
    at = PUT_LITERAL(at, "}\n");
    commit(rows, at);
    return 0;
}

const struct map_form map_form_jsonl = { false, false, jsonl_nothing, jsonl_row, jsonl_nothing };

/* ---- Clusters of one layer ------------------------------------------------ */

static void clusters_begin(struct map_rows *rows)
{
    char *at = PUT_LITERAL(reserve(rows), "{\"virtual_size\":");
    at = cli_put_u64(at, imgtk_image_size(rows->image));
    at = PUT_LITERAL(at, ",\"cluster_bits\":");
    at = cli_put_u64(at, rows->cluster_bits);
    at = PUT_LITERAL(at, ",\"data_clusters\":[");
    commit(rows, at);
}

static void put_interval(struct map_rows *rows)
{
    char *at = reserve(rows);
    if (rows->rows++ > 0)
        *at++ = ',';
    *at++ = '[';
    at = cli_put_u64(at, rows->first);
    *at++ = ',';
    at = cli_put_u64(at, rows->last);
    *at++ = ']';
    commit(rows, at);
}

static void put_clusters(struct map_rows *rows)
{
    for (uint64_t cluster = rows->first; cluster <= rows->last; cluster++) {
        char *at = reserve(rows);
        if (rows->rows++ > 0)
            *at++ = ',';
        commit(rows, cli_put_u64(at, cluster));
    }
}

static void close_run(struct map_rows *rows)
{
    if (rows->open && rows->form == &map_form_intervals)
        put_interval(rows);
    else if (rows->open)
        put_clusters(rows);
    rows->open = false;
}

/* Zeroes count where they hide what a backing file has; elsewhere they are nothing. */
static int clusters_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_rows *rows = context;
    if (!row->present || (row->extent.kind == IMGTK_EXTENT_ZERO && !rows->has_backing))
        return 0;
    uint64_t first = row->start >> rows->cluster_bits;
    uint64_t last = (row->start + row->extent.length - 1) >> rows->cluster_bits;
    if (rows->open && first <= rows->last + 1) {
        rows->last = last;
        return 0;
    }
    close_run(rows);
    rows->open = true;
    rows->first = first;
    rows->last = last;
    return 0;
}

static void clusters_end(struct map_rows *rows)
{
    close_run(rows);
    put_text(rows, "]}\n");
}

const struct map_form map_form_intervals = { true, true, clusters_begin, clusters_row, clusters_end };
const struct map_form map_form_clusters = { true, true, clusters_begin, clusters_row, clusters_end };
