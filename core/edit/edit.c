/* What the jobs that change an image in place have in common. */
#include "edit.h"

#include <stdlib.h>
#include <string.h>

#include "chain/image_internal.h"
#include "imgtk/bytes.h"

int edit_fail_prefix(const struct imgtk_image *image, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    if (err && err->status == IMGTK_EUNSUPPORTED)
        return imgtk_fail_prefix(err, "%s: format %s", layer->name, layer->driver->name);
    return imgtk_fail_prefix(err, "%s", layer->name);
}

int edit_begin(struct imgtk_image *image, bool same_disk, uint32_t *unit, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    struct imgtk_edit edit = { .same_disk = same_disk };
    /* Whoever wrote the disk's first bytes could choose what happens to the file. */
    if (layer->format_guessed)
        return imgtk_fail(err, IMGTK_EREFUSED, "%s: no known format is recognised, and raw is not guessed for writing: "
                                               "name it with -f raw, if it is", layer->name);
    if (layer->driver->edit_begin(layer->handle, &edit, err))
        return edit_fail_prefix(image, err);
    *unit = edit.unit;
    return 0;
}

int edit_read_padded(struct imgtk_image *image, uint8_t *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    uint64_t size = image ? imgtk_image_size(image) : 0;
    size_t present = offset < size ? (size_t)imgtk_min_u64(length, size - offset) : 0;
    memset(buf + present, 0, length - present);
    return present ? imgtk_image_read(image, buf, present, offset, err) : 0;
}

int edit_commit(struct imgtk_image *image, struct imgtk_error *err)
{
    struct imgtk_layer *layer = &image->layers[0].public;
    if (layer->driver->edit_commit(layer->handle, err))
        return edit_fail_prefix(image, err);
    layer->size = layer->driver->size(layer->handle);
    return 0;
}

int edit_write(struct imgtk_image *image, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    return layer->driver->edit_write(layer->handle, buf, length, offset, err) ? edit_fail_prefix(image, err) : 0;
}

int edit_zero(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    return layer->driver->edit_zero(layer->handle, offset, length, err) ? edit_fail_prefix(image, err) : 0;
}

/* ---- Growing ------------------------------------------------------------------ */

static uint64_t size_below(const struct imgtk_image *image)
{
    return image->count > 1 ? image->layers[1].public.size : 0;
}

/* The unit in which the disk ended: whatever its layer has behind that end becomes visible. */
static int clear_last_unit(struct imgtk_image *image, uint64_t size, uint32_t unit, bool allocate,
                           struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    uint64_t start = imgtk_round_down(layer->size, unit);
    size_t kept = (size_t)(layer->size - start), length = (size_t)imgtk_min_u64(unit, size - start);
    struct imgtk_extent extent = { 0 };
    if (kept == 0)
        return 0;
    int status = layer->driver->extent(layer->handle, start, kept, &extent, err);
    if (status)
        return edit_fail_prefix(image, err);
    if (!allocate && extent.kind != IMGTK_EXTENT_DATA && extent.length >= kept && size_below(image) <= layer->size)
        return 0;
    uint8_t *bytes = calloc(1, length);
    if (!bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    status = imgtk_image_read(image, bytes, kept, start, err);
    if (!status)
        status = edit_write(image, bytes, length, start, err);
    free(bytes);
    return status;
}

/* A backing file that is longer than the disk was would show through. */
static int hide_below(struct imgtk_image *image, uint64_t size, uint32_t unit, struct imgtk_error *err)
{
    uint64_t start = imgtk_round_up(image->layers[0].public.size, unit);
    uint64_t end = imgtk_min_u64(imgtk_round_up(size_below(image), unit), size);
    return end > start ? edit_zero(image, start, end - start, err) : 0;
}

int edit_grow(struct imgtk_image *image, uint64_t size, uint32_t unit, const enum imgtk_allocation *how,
              struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    if (layer->driver->edit_resize(layer->handle, size, err))
        return edit_fail_prefix(image, err);
    int status = clear_last_unit(image, size, unit, how, err);
    if (!status)
        status = hide_below(image, size, unit, err);
    if (!status && how && layer->driver->edit_allocate(layer->handle, layer->size, *how, err))
        status = edit_fail_prefix(image, err);
    return status;
}
