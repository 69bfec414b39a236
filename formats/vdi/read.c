#include <string.h>

#include "vdi.h"

/* Blocks that follow each other in the file are one extent, so they are one request. */
int vdi_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    uint8_t *to = buf;
    while (length > 0) {
        struct imgtk_extent extent;
        int status = vdi_extent(handle, offset, length, &extent, err);
        if (status)
            return status;
        size_t piece = (size_t)imgtk_min_u64(length, extent.length);
        if (extent.kind == IMGTK_EXTENT_DATA)
            status = imgtk_storage_pread(extent.file, to, piece, extent.host_offset, err);
        else
            memset(to, 0, piece);
        if (status)
            return status;
        to += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}
