/* Changing the size of a disk. */
#include "chain/image_internal.h"
#include "edit.h"

int imgtk_resize(struct imgtk_image *image, uint64_t size, bool shrink, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    uint32_t unit = 0;
    if (size < layer->size && !shrink)
        return imgtk_fail(err, IMGTK_EREFUSED, "%s: %llu bytes are less than the disk has, %llu", layer->name,
                          (unsigned long long)size, (unsigned long long)layer->size);
    int status = edit_begin(image, false, &unit, err);
    if (status)
        return status;
    if (size > layer->size)
        status = edit_grow(image, size, unit, NULL, err);
    else if (layer->driver->edit_resize(layer->handle, size, err))
        status = edit_fail_prefix(image, err);
    return status ? status : edit_commit(image, err);
}

int imgtk_grow(struct imgtk_image *image, uint64_t size, enum imgtk_allocation how, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    uint32_t unit = 0;
    if (size <= layer->size)
        return imgtk_fail(err, IMGTK_EINVAL, "Preallocation can only be used for growing images");
    int status = edit_begin(image, false, &unit, err);
    if (!status)
        status = edit_grow(image, size, unit, &how, err);
    return status ? status : edit_commit(image, err);
}
