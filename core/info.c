#include "imgtk/info.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NESTING 16

struct imgtk_info {
    json_t *open[MAX_NESTING]; /* the containers being filled; [0] is the root */
    size_t depth;              /* of the innermost */
    size_t skipped;            /* containers begun that could not be opened */
    bool too_deep, no_memory;
};

struct imgtk_info *imgtk_info_new(enum imgtk_info_kind root)
{
    struct imgtk_info *info = calloc(1, sizeof *info);
    if (!info)
        return NULL;
    info->open[0] = root == IMGTK_INFO_LIST ? json_array() : json_object();
    if (!info->open[0]) {
        free(info);
        return NULL;
    }
    return info;
}

void imgtk_info_free(struct imgtk_info *info)
{
    if (!info)
        return;
    json_decref(info->open[0]);
    free(info);
}

bool imgtk_info_empty(const struct imgtk_info *info)
{
    return json_is_array(info->open[0]) ? json_array_size(info->open[0]) == 0 : json_object_size(info->open[0]) == 0;
}

int imgtk_info_status(const struct imgtk_info *info, struct imgtk_error *err)
{
    if (info->no_memory)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for information about the image");
    if (info->too_deep)
        return imgtk_fail(err, IMGTK_ELIMIT, "information about the image is nested more than %d deep", MAX_NESTING);
    return 0;
}

/* ---- Text ---------------------------------------------------------------- */

/* The length of the UTF-8 sequence at p, or 0 when it is none (overlong and surrogate forms too). */
static size_t utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

static json_t *text_node(const char *value)
{
    size_t length = strlen(value);
    char *clean = malloc(length * 3 + 1);
    if (!clean)
        return NULL;
    char *out = clean;
    for (const unsigned char *p = (const unsigned char *)value; *p;) {
        size_t step = utf8_length(p);
        memcpy(out, step ? (const char *)p : "\xef\xbf\xbd", step ? step : 3);
        out += step ? step : 3;
        p += step ? step : 1;
    }
    json_t *node = json_stringn_nocheck(clean, (size_t)(out - clean));
    free(clean);
    return node;
}

/* ---- Filling ------------------------------------------------------------- */

/* Takes `node`, which may be NULL: memory ran out. */
static void add_node(struct imgtk_info *info, const char *key, json_t *node)
{
    json_t *parent = info->open[info->depth];
    if (info->skipped > 0) {
        json_decref(node);
        return;
    }
    int failed = json_is_array(parent) ? json_array_append_new(parent, node)
                                       : json_object_set_new(parent, key ? key : "", node);
    if (failed)
        info->no_memory = true;
}

void imgtk_info_text(struct imgtk_info *info, const char *key, const char *value)
{
    add_node(info, key, text_node(value));
}

void imgtk_info_number(struct imgtk_info *info, const char *key, uint64_t value)
{
    /* JSON has no unsigned 64-bit numbers that every reader takes; jansson has none either. */
    add_node(info, key, value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value));
}

void imgtk_info_signed(struct imgtk_info *info, const char *key, int64_t value)
{
    add_node(info, key, json_integer(value));
}

void imgtk_info_bool(struct imgtk_info *info, const char *key, bool value)
{
    add_node(info, key, json_boolean(value));
}

static void begin(struct imgtk_info *info, const char *key, json_t *node)
{
    bool deep = info->depth + 1 == MAX_NESTING;
    info->too_deep |= deep;
    info->no_memory |= !node;
    if (deep || !node || info->skipped > 0) {
        json_decref(node);
        info->skipped++;
        return;
    }
    add_node(info, key, node);
    if (info->no_memory)
        info->skipped++;
    else
        info->open[++info->depth] = node;
}

void imgtk_info_begin_list(struct imgtk_info *info, const char *key)
{
    begin(info, key, json_array());
}

void imgtk_info_begin_object(struct imgtk_info *info, const char *key)
{
    begin(info, key, json_object());
}

void imgtk_info_end(struct imgtk_info *info)
{
    if (info->skipped > 0)
        info->skipped--;
    else if (info->depth > 0)
        info->depth--;
}

void imgtk_info_add(struct imgtk_info *info, const char *key, const struct imgtk_info *part)
{
    info->no_memory |= part->no_memory;
    info->too_deep |= part->too_deep;
    add_node(info, key, json_incref(part->open[0]));
}

/* ---- Printing ------------------------------------------------------------ */

char *imgtk_info_json(const struct imgtk_info *info)
{
    return json_dumps(info->open[0], JSON_INDENT(4) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(17));
}

static struct imgtk_info_value describe_node(const char *key, json_t *node)
{
    struct imgtk_info_value value = { .key = key, .node = node };
    switch (json_typeof(node)) {
    case JSON_OBJECT:
        value.kind = IMGTK_INFO_OBJECT;
        break;
    case JSON_ARRAY:
        value.kind = IMGTK_INFO_LIST;
        break;
    case JSON_STRING:
        value.kind = IMGTK_INFO_TEXT;
        value.text = json_string_value(node);
        break;
    case JSON_INTEGER:
        value.kind = IMGTK_INFO_NUMBER;
        value.number = json_integer_value(node);
        break;
    case JSON_REAL:
        value.kind = IMGTK_INFO_NUMBER;
        value.number = INT64_MAX;
        break;
    default:
        value.kind = IMGTK_INFO_BOOL;
        value.truth = json_is_true(node);
    }
    return value;
}

int imgtk_info_members(const struct imgtk_info *info, void *node,
                       int (*member)(void *context, const struct imgtk_info_value *value), void *context)
{
    json_t *container = node ? node : info->open[0];
    int result = 0;
    if (json_is_array(container)) {
        for (size_t i = 0; i < json_array_size(container) && result == 0; i++) {
            struct imgtk_info_value value = describe_node(NULL, json_array_get(container, i));
            result = member(context, &value);
        }
        return result;
    }
    for (void *at = json_object_iter(container); at && result == 0; at = json_object_iter_next(container, at)) {
        struct imgtk_info_value value = describe_node(json_object_iter_key(at), json_object_iter_value(at));
        result = member(context, &value);
    }
    return result;
}

/* ---- Asking a driver ----------------------------------------------------- */

int imgtk_layer_describe(const struct imgtk_layer *layer, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof *out);
    out->specific = imgtk_info_new(IMGTK_INFO_OBJECT);
    out->snapshots = imgtk_info_new(IMGTK_INFO_LIST);
    int status = 0;
    if (!out->specific || !out->snapshots)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for information about the image");
    if (status == 0)
        status = layer->driver->info(layer->handle, out, err);
    if (status == 0)
        status = imgtk_info_status(out->specific, err);
    if (status == 0)
        status = imgtk_info_status(out->snapshots, err);
    if (status) {
        imgtk_info_free(out->specific);
        imgtk_info_free(out->snapshots);
        memset(out, 0, sizeof *out);
    }
    return status;
}

int imgtk_image_check(struct imgtk_image *image, struct imgtk_check *check, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = imgtk_image_layer(image, 0);
    return layer->driver->check(layer->handle, check, err);
}
