/* Whether internal snapshots read as before when what lies below them changes. */
#include <string.h>

#include "chain/image_internal.h"
#include "edit.h"
#include "imgtk/bytes.h"
#include "imgtk/info.h"
#include "jobs/readahead.h"
#include "same_place.h"

struct comparison {
    const struct edit_below *below;
    size_t layer;                  /* that has the snapshots */
    const char *name;              /* of the snapshot at hand */
    struct imgtk_image *images[2]; /* that snapshot as it reads now, and what will lie below it (NULL: zeroes) */
    struct imgtk_walk *walks[2];
    struct same_place places;
    struct readahead *ahead;
    struct imgtk_error *err;
};

/* ---- Content ------------------------------------------------------------------ */

static int read_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    const struct comparison *comparison = context;
    int status = edit_read_padded(comparison->images[0], piece->ours, piece->length, piece->offset, err);
    return status ? status
                  : edit_read_padded(comparison->images[1], piece->theirs, piece->length, piece->offset, err);
}

static int compare_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    const struct comparison *comparison = context;
    const struct edit_below *below = comparison->below;
    if (imgtk_cancel_reason(below->cancel))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    if (memcmp(piece->ours, piece->theirs, piece->length) == 0)
        return 0;
    return imgtk_fail(err, IMGTK_EREFUSED,
                      "%s: %s would change the disk of the internal snapshot with the id %s: delete that first",
                      below->image->layers[comparison->layer].public.name, below->what, comparison->name);
}

/* ---- Extents -------------------------------------------------------------------- */

static int look(struct comparison *comparison, unsigned which, uint64_t offset, uint64_t length,
                struct imgtk_chain_extent *out, struct imgtk_error *err)
{
    struct imgtk_image *image = comparison->images[which];
    uint64_t size = image ? imgtk_image_size(image) : 0;
    if (offset < size)
        return imgtk_walk_next(comparison->walks[which], offset, imgtk_min_u64(length, size - offset), out, err);
    *out = (struct imgtk_chain_extent){ .start = offset,
                                        .extent = { .length = length, .kind = IMGTK_EXTENT_ZERO } };
    return 0;
}

/* A range that the snapshot takes from what changes. */
static int compare_range(struct comparison *comparison, uint64_t offset, uint64_t end, struct imgtk_error *err)
{
    int status = 0;
    while (!status && offset < end) {
        struct imgtk_chain_extent extents[2];
        status = look(comparison, 0, offset, end - offset, &extents[0], err);
        if (!status)
            status = look(comparison, 1, offset, end - offset, &extents[1], err);
        if (status)
            break;
        uint64_t length = imgtk_min_u64(extents[0].extent.length, extents[1].extent.length);
        bool zero = extents[0].extent.kind == IMGTK_EXTENT_ZERO && extents[1].extent.kind == IMGTK_EXTENT_ZERO;
        if (!zero && !(comparison->images[1] && same_place(&comparison->places, comparison->images, extents)))
            status = readahead_add(comparison->ahead, offset, length, err);
        offset += length;
    }
    return status;
}

/* Whether what changes shows through the layers above it; *length: how far the answer holds. */
static int shows_below(const struct comparison *comparison, uint64_t offset, uint64_t *length, bool *out,
                       struct imgtk_error *err)
{
    const struct imgtk_image *snapshot = comparison->images[0];
    *out = false;
    for (size_t i = 0; i < comparison->below->depth - comparison->layer; i++) {
        const struct imgtk_layer *layer = &snapshot->layers[i].public;
        struct imgtk_extent extent = { 0 };
        if (offset >= layer->size)
            return 0;
        if (layer->driver->extent(layer->handle, offset, layer->size - offset, &extent, err))
            return imgtk_fail_prefix(err, "%s", layer->name);
        *length = imgtk_min_u64(*length, imgtk_min_u64(extent.length, layer->size - offset));
        if (extent.kind != IMGTK_EXTENT_BACKING)
            return 0;
    }
    *out = true;
    return 0;
}

static int compare_all(struct comparison *comparison, struct imgtk_error *err)
{
    uint64_t end = imgtk_min_u64(imgtk_image_size(comparison->images[0]), comparison->below->end);
    int status = 0;
    for (uint64_t offset = 0; !status && offset < end;) {
        uint64_t length = end - offset;
        bool shows = false;
        status = shows_below(comparison, offset, &length, &shows, err);
        if (!status && shows)
            status = compare_range(comparison, offset, offset + length, err);
        offset += length;
    }
    return status ? status : readahead_drain(comparison->ahead, err);
}

/* ---- Snapshots --------------------------------------------------------------------- */

static int compare_snapshot(struct comparison *comparison, struct imgtk_error *err)
{
    struct readahead_options options = { .read = read_piece, .take = compare_piece, .context = comparison,
                                         .theirs = true, .workers = image_workers(comparison->below->image) };
    int status = imgtk_walk_new(comparison->images[0], &comparison->walks[0], err);
    if (!status && comparison->images[1])
        status = imgtk_walk_new(comparison->images[1], &comparison->walks[1], err);
    if (!status)
        status = readahead_new(&options, &comparison->ahead, err);
    if (!status)
        status = compare_all(comparison, err);
    readahead_free(comparison->ahead);
    imgtk_walk_free(comparison->walks[0]);
    imgtk_walk_free(comparison->walks[1]);
    return status;
}

static int take_snapshot(struct comparison *listed, const char *id)
{
    const struct edit_below *below = listed->below;
    struct comparison comparison = { .below = below, .layer = listed->layer, .name = id,
                                     .images = { NULL, below->after } };
    int status = image_open_snapshot(below->image, listed->layer, id, &comparison.images[0], listed->err);
    if (!status)
        status = compare_snapshot(&comparison, listed->err);
    imgtk_image_close(comparison.images[0]);
    return status;
}

static int take_field(void *context, const struct imgtk_info_value *value)
{
    return strcmp(value->key, "id") == 0 ? take_snapshot(context, value->text) : 0;
}

struct list {
    struct comparison comparison;
    const struct imgtk_info *tree;
};

static int take_row(void *context, const struct imgtk_info_value *value)
{
    struct list *list = context;
    return imgtk_info_members(list->tree, value->node, take_field, &list->comparison);
}

static int keep_those_of(const struct edit_below *below, size_t depth, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &below->image->layers[depth].public;
    struct imgtk_layer_info about = { 0 };
    int status = imgtk_layer_describe(layer, &about, err);
    if (status)
        return imgtk_fail_prefix(err, "%s", layer->name);
    struct list list = { .comparison = { .below = below, .layer = depth, .err = err }, .tree = about.snapshots };
    status = imgtk_info_members(about.snapshots, NULL, take_row, &list);
    imgtk_info_free(about.specific);
    imgtk_info_free(about.snapshots);
    return status;
}

int edit_keep_snapshots(const struct edit_below *below, struct imgtk_error *err)
{
    int status = 0;
    for (size_t depth = 0; !status && depth < below->depth; depth++)
        status = keep_those_of(below, depth, err);
    return status;
}
