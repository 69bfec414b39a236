/* What a layer says about a range: runs of blocks. */
#include "vdi.h"

static void fill_unallocated(const struct vdi *vdi, uint32_t entry, struct imgtk_extent *out)
{
    bool below = entry == VDI_FREE && vdi->header.type == VDI_DIFFERENCING;
    out->kind = below ? IMGTK_EXTENT_BACKING : IMGTK_EXTENT_ZERO;
    out->flags = below ? IMGTK_EXTENT_UNALLOCATED : 0;
}

int vdi_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct vdi *vdi = handle;
    uint32_t size = vdi->header.block_size, block = (uint32_t)(offset / size), entry, count;
    uint64_t wanted = imgtk_div_round_up(length, size) + 1;
    uint32_t limit = (uint32_t)imgtk_min_u64(wanted, vdi->blocks - block);
    if (vdi->header.block_extra) /* data of neighbours are apart */
        limit = 1;
    int status = vdi_table_run(vdi, block, limit, &entry, &count, err);
    if (!status && vdi_is_allocated(entry)) /* the last of a run is the one nearest to the end of the file */
        status = vdi_block_validate(vdi, block + count - 1, entry + count - 1, err);
    if (status)
        return status;
    uint64_t end = imgtk_min_u64((block + (uint64_t)count) * size, vdi->header.disk_size);
    *out = (struct imgtk_extent){ .length = end - offset };
    if (!vdi_is_allocated(entry)) {
        fill_unallocated(vdi, entry, out);
        return 0;
    }
    out->kind = IMGTK_EXTENT_DATA;
    out->flags = IMGTK_EXTENT_PLAIN | (vdi->header.type == VDI_STATIC ? IMGTK_EXTENT_ASK_STORAGE : 0u);
    out->file = vdi->file;
    out->host_offset = vdi_block_offset(vdi, entry) + offset % size;
    return 0;
}
