/*
 * Walking a chain: which layer answers for a range, what the range is, and its bytes. Every layer's last extent is
 * remembered, so a layer is asked once per extent of its own, however finely the layers above and below are cut.
 */
#include <stdlib.h>
#include <string.h>

#include "image_internal.h"
#include "imgtk/bytes.h"

struct cursor {
    uint64_t start; /* of the remembered extent */
    struct imgtk_extent extent; /* length 0: nothing remembered */
};

struct imgtk_walk {
    struct imgtk_image *image;
    bool ask_always;
    struct cursor cursors[]; /* one per layer */
};

int imgtk_walk_new(struct imgtk_image *image, struct imgtk_walk **out, struct imgtk_error *err)
{
    *out = calloc(1, sizeof(**out) + image->count * sizeof((*out)->cursors[0]));
    if (!*out)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    (*out)->image = image;
    return 0;
}

void imgtk_walk_free(struct imgtk_walk *walk)
{
    free(walk);
}

void imgtk_walk_ask_storage(struct imgtk_walk *walk, bool always)
{
    walk->ask_always = always;
}

/* ---- One layer ---------------------------------------------------------- */

void extent_advance(struct imgtk_extent *extent, uint64_t by)
{
    extent->length -= by;
    if (extent->flags & IMGTK_EXTENT_PLAIN)
        extent->host_offset += by;
}

/* The layer's extent at offset, from memory or from the driver; the driver's answer is not trusted to be sane. */
static int ask_layer(struct imgtk_walk *walk, size_t depth, uint64_t offset, uint64_t length,
                     struct imgtk_extent *out, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &walk->image->layers[depth].public;
    struct cursor *cursor = &walk->cursors[depth];
    if (offset < cursor->start || offset - cursor->start >= cursor->extent.length) {
        cursor->extent = (struct imgtk_extent){ 0 };
        int status = layer->driver->extent(layer->handle, offset, length, &cursor->extent, err);
        if (status) {
            cursor->extent.length = 0;
            return imgtk_fail_prefix(err, "%s", layer->name);
        }
        cursor->start = offset;
        if (cursor->extent.length == 0)
            return imgtk_fail(err, IMGTK_ECORRUPT, "%s: the driver %s answers with an empty extent at %llu",
                              layer->name, layer->driver->name, (unsigned long long)offset);
    }
    *out = cursor->extent;
    extent_advance(out, offset - cursor->start);
    out->length = imgtk_min_u64(out->length, layer->size - offset);
    return 0;
}

/* Preallocated or sparse host files hold holes where their image says data. */
static int ask_storage(struct imgtk_extent *extent, struct imgtk_error *err)
{
    struct imgtk_range range;
    int status = imgtk_storage_extent(extent->file, extent->host_offset, extent->length, &range, err);
    if (status)
        return status;
    extent->length = range.length;
    if (range.kind == IMGTK_RANGE_ZERO) {
        extent->kind = IMGTK_EXTENT_ZERO;
        extent->flags |= IMGTK_EXTENT_STORAGE_HOLE;
    }
    return 0;
}

static bool storage_may_know(const struct imgtk_walk *walk, const struct imgtk_extent *extent)
{
    if (extent->kind != IMGTK_EXTENT_DATA || !(extent->flags & IMGTK_EXTENT_PLAIN))
        return false;
    if (!(imgtk_storage_flags(extent->file) & IMGTK_STORAGE_HAS_EXTENTS))
        return false;
    return walk->ask_always || (extent->flags & IMGTK_EXTENT_ASK_STORAGE);
}

/* ---- The chain ---------------------------------------------------------- */

static int check_range(const struct imgtk_walk *walk, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(walk->image);
    if (imgtk_range_fits(offset, length, size) && length > 0)
        return 0;
    return imgtk_fail(err, IMGTK_EINVAL, "range %llu+%llu is outside the image, which has %llu bytes",
                      (unsigned long long)offset, (unsigned long long)length, (unsigned long long)size);
}

/* Zeroes that no layer holds. Those past the end of a short layer count as the layer's above it, as elsewhere. */
static void nothing_there(struct imgtk_chain_extent *out, uint64_t length, size_t depth)
{
    out->extent = (struct imgtk_extent){ .length = length, .kind = IMGTK_EXTENT_ZERO,
                                         .flags = IMGTK_EXTENT_UNALLOCATED };
    out->depth = depth;
    out->present = false;
}

/* Space that the last layer asked keeps for a range that it says nothing about. */
static void keep_reserved(struct imgtk_chain_extent *out, const struct imgtk_extent *reserved)
{
    if (!(reserved->flags & IMGTK_EXTENT_PLAIN))
        return;
    out->extent.flags |= IMGTK_EXTENT_PLAIN;
    out->extent.file = reserved->file;
    out->extent.host_offset = reserved->host_offset;
}

int imgtk_walk_next(struct imgtk_walk *walk, uint64_t offset, uint64_t length, struct imgtk_chain_extent *out,
                    struct imgtk_error *err)
{
    int status = check_range(walk, offset, length, err);
    if (status)
        return status;
    struct imgtk_extent reserved = { 0 };
    out->start = offset;
    size_t depth = 0;
    for (; depth < walk->image->count && offset < walk->image->layers[depth].public.size; depth++) {
        struct imgtk_extent extent;
        status = ask_layer(walk, depth, offset, length, &extent, err);
        if (status)
            return status;
        extent.length = length = imgtk_min_u64(length, extent.length);
        if (extent.kind == IMGTK_EXTENT_BACKING) {
            reserved = extent;
            continue;
        }
        if (storage_may_know(walk, &extent))
            status = ask_storage(&extent, err);
        out->extent = extent;
        out->depth = depth;
        out->present = !(extent.flags & IMGTK_EXTENT_UNALLOCATED);
        return status;
    }
    nothing_there(out, length, depth - 1);
    keep_reserved(out, &reserved);
    return 0;
}

bool walk_continues(const struct imgtk_chain_extent *first, const struct imgtk_chain_extent *next)
{
    const struct imgtk_extent *a = &first->extent, *b = &next->extent;
    uint32_t same = IMGTK_EXTENT_COMPRESSED | IMGTK_EXTENT_PLAIN | IMGTK_EXTENT_STORAGE_HOLE;
    if (a->kind != b->kind || ((a->flags ^ b->flags) & same) || first->depth != next->depth ||
        first->present != next->present)
        return false;
    return !(a->flags & IMGTK_EXTENT_PLAIN) || (a->file == b->file && a->host_offset + a->length == b->host_offset);
}

int imgtk_walk_merged(struct imgtk_walk *walk, uint64_t offset, uint64_t length, struct imgtk_chain_extent *out,
                      struct imgtk_error *err)
{
    int status = imgtk_walk_next(walk, offset, length, out, err);
    while (!status && out->extent.length < length) {
        struct imgtk_chain_extent next;
        status = imgtk_walk_next(walk, offset + out->extent.length, length - out->extent.length, &next, err);
        if (status || !walk_continues(out, &next))
            break;
        out->extent.length += next.extent.length;
    }
    return status;
}

/* ---- Bytes -------------------------------------------------------------- */

static int read_layer(struct imgtk_walk *walk, size_t depth, void *buf, size_t length, uint64_t offset,
                      struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &walk->image->layers[depth].public;
    int status = layer->driver->read(layer->handle, buf, length, offset, err);
    return status ? imgtk_fail_prefix(err, "%s", layer->name) : 0;
}

/* Below the bottom layer there is nothing to overlay, and its read fills its own holes: no extents needed. */
static bool is_bottom(const struct imgtk_walk *walk, size_t depth, uint64_t offset, size_t length)
{
    return depth + 1 == walk->image->count &&
           imgtk_range_fits(offset, length, walk->image->layers[depth].public.size);
}

static int read_from(struct imgtk_walk *walk, size_t depth, uint8_t *buf, size_t length, uint64_t offset,
                     struct imgtk_error *err);

/* One extent of one layer: read it, or let the layers below fill it. */
static int read_piece(struct imgtk_walk *walk, size_t depth, uint8_t *buf, size_t length, uint64_t offset,
                      size_t *done, struct imgtk_error *err)
{
    if (depth == walk->image->count || offset >= walk->image->layers[depth].public.size) {
        memset(buf, 0, length);
        *done = length;
        return 0;
    }
    struct imgtk_extent extent = { 0 };
    int status = ask_layer(walk, depth, offset, length, &extent, err);
    if (status)
        return status;
    *done = (size_t)imgtk_min_u64(length, extent.length);
    if (extent.kind == IMGTK_EXTENT_BACKING)
        return read_from(walk, depth + 1, buf, *done, offset, err);
    if (extent.kind == IMGTK_EXTENT_ZERO) {
        memset(buf, 0, *done);
        return 0;
    }
    return read_layer(walk, depth, buf, *done, offset, err);
}

static int read_from(struct imgtk_walk *walk, size_t depth, uint8_t *buf, size_t length, uint64_t offset,
                     struct imgtk_error *err)
{
    if (is_bottom(walk, depth, offset, length))
        return read_layer(walk, depth, buf, length, offset, err);
    while (length > 0) {
        size_t done = 0;
        int status = read_piece(walk, depth, buf, length, offset, &done, err);
        if (status)
            return status;
        buf += done;
        offset += done;
        length -= done;
    }
    return 0;
}

int imgtk_walk_read(struct imgtk_walk *walk, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    if (length == 0)
        return 0;
    int status = check_range(walk, offset, length, err);
    return status ? status : read_from(walk, 0, buf, length, offset, err);
}

int imgtk_image_read(struct imgtk_image *image, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct imgtk_walk *walk;
    int status = imgtk_walk_new(image, &walk, err);
    if (status)
        return status;
    status = imgtk_walk_read(walk, buf, length, offset, err);
    imgtk_walk_free(walk);
    return status;
}
