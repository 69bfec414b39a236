#include <inttypes.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

/* What the file stores; the part that only the replay adds to it is zero. */
static int read_stored(struct vhdx_image *image, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    size_t stored = offset < image->stored_size ? (size_t)imgtk_min_u64(length, image->stored_size - offset) : 0;
    memset((char *)buf + stored, 0, length - stored);
    return stored ? imgtk_storage_pread(image->file, buf, stored, offset, err) : 0;
}

static int read_patch(struct vhdx_image *image, const struct vhdx_patch *patch, uint8_t *buf, size_t length,
                      uint64_t offset, struct imgtk_error *err)
{
    uint8_t sector[VHDX_LOG_SECTOR];
    if (patch->source == 0) {
        memset(buf, 0, length);
        return 0;
    }
    int status = imgtk_storage_pread(image->file, sector, sizeof(sector), patch->source, err);
    if (status)
        return status;
    memcpy(sector, patch->leading, sizeof(patch->leading));
    memcpy(sector + VHDX_LOG_SECTOR - sizeof(patch->trailing), patch->trailing, sizeof(patch->trailing));
    memcpy(buf, sector + (offset - patch->start), length);
    return 0;
}

static int apply_overlay(struct vhdx_image *image, uint8_t *buf, size_t length, uint64_t offset,
                         struct imgtk_error *err)
{
    const struct vhdx_patch *patch = vhdx_overlay_find(&image->overlay, offset);
    size_t left = patch ? image->overlay.count - (size_t)(patch - image->overlay.patches) : 0;
    for (; left > 0 && patch->start < offset + length; left--, patch++) {
        uint64_t from = patch->start > offset ? patch->start : offset;
        uint64_t to = imgtk_min_u64(patch->end, offset + length);
        int status = read_patch(image, patch, buf + (from - offset), (size_t)(to - from), from, err);
        if (status)
            return status;
    }
    return 0;
}

int vhdx_file_read(struct vhdx_image *image, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    if (!imgtk_range_fits(offset, length, image->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "%zu bytes at %" PRIu64 " are needed, but the file ends at byte %"
                          PRIu64, length, offset, image->file_size);
    if (!image->replayed)
        return imgtk_storage_pread(image->file, buf, length, offset, err);
    int status = read_stored(image, buf, length, offset, err);
    return status ? status : apply_overlay(image, buf, length, offset, err);
}

int vhdx_table_at(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t offset, const uint8_t **out,
                  struct imgtk_error *err)
{
    uint64_t slice_offset = imgtk_round_down(offset, VHDX_SLICE);
    if (!tables->slice || tables->offset != slice_offset) {
        vhdx_tables_done(image, tables);
        const void *slice;
        int status = imgtk_cache_get(image->tables, slice_offset, &slice, err);
        if (status)
            return status;
        *tables = (struct vhdx_tables){ slice, slice_offset };
    }
    *out = tables->slice + (offset - slice_offset);
    return 0;
}

void vhdx_tables_done(struct vhdx_image *image, struct vhdx_tables *tables)
{
    if (tables->slice)
        imgtk_cache_put(image->tables, tables->slice);
    tables->slice = NULL;
}
