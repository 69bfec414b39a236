/* Internal snapshots. */
#include "chain/image_internal.h"
#include "edit.h"

int imgtk_snapshot_change(struct imgtk_image *image, const struct imgtk_snapshot_change *change,
                          struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    uint32_t unit = 0;
    int status = edit_begin(image, false, &unit, err);
    if (!status && layer->driver->edit_snapshot(layer->handle, change, err))
        status = edit_fail_prefix(image, err);
    return status ? status : edit_commit(image, err);
}
