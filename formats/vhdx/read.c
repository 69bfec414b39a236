#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

int vhdx_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct vhdx_image *image = handle;
    char *out = buf;
    while (length > 0) {
        struct vhdx_run run;
        int status = vhdx_map(image, offset, length, &run, err);
        if (status)
            return status;
        size_t part = (size_t)imgtk_min_u64(run.length, length);
        if (run.kind == IMGTK_EXTENT_DATA)
            status = vhdx_file_read(image, out, part, run.host, err);
        else
            memset(out, 0, part);
        if (status)
            return status;
        out += part;
        offset += part;
        length -= part;
    }
    return 0;
}

/* A run as the stored file has it: where the log's replay changes bytes, they lie nowhere plainly. */
static void plain_part(const struct vhdx_image *image, struct imgtk_extent *extent)
{
    const struct vhdx_patch *patch = vhdx_overlay_find(&image->overlay, extent->host_offset);
    uint64_t plain = extent->host_offset < image->stored_size ? image->stored_size - extent->host_offset : 0;
    if (patch && patch->start <= extent->host_offset) {
        extent->length = imgtk_min_u64(extent->length, patch->end - extent->host_offset);
        plain = 0;
    } else if (patch) {
        uint64_t before = patch->start - extent->host_offset;
        if (plain == 0)
            extent->length = imgtk_min_u64(extent->length, before);
        plain = imgtk_min_u64(plain, before);
    }
    if (plain == 0)
        return;
    extent->length = imgtk_min_u64(extent->length, plain);
    extent->flags |= IMGTK_EXTENT_PLAIN;
}

int vhdx_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct vhdx_image *image = handle;
    struct vhdx_run run;
    int status = vhdx_map(image, offset, length ? length : 1, &run, err);
    if (status)
        return status;
    *out = (struct imgtk_extent){ .length = run.length, .kind = run.kind };
    if (run.kind == IMGTK_EXTENT_DATA) {
        out->host_offset = run.host;
        out->file = image->file;
        plain_part(image, out);
        /* Blocks are large, and those of a fixed disk are there from the beginning: expect holes within. */
        if (out->flags & IMGTK_EXTENT_PLAIN)
            out->flags |= IMGTK_EXTENT_ASK_STORAGE;
    } else if (run.unallocated) {
        out->flags = IMGTK_EXTENT_UNALLOCATED;
    }
    return 0;
}
