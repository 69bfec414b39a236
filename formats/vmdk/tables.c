/* The layout of a sparse extent that is being written, and its header. */
#include <string.h>

#include "writer.h"

int vmdk_tables_place(uint64_t length, size_t descriptor_bytes, struct vmdk_tables *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->gd_entries = imgtk_div_round_up(length, VMDK_GT_COVERAGE);
    if (out->gd_entries > VMDK_MAX_GD_ENTRIES)
        return imgtk_fail(err, IMGTK_ELIMIT, "a sparse vmdk image of %llu bytes is above the limit of %llu",
                          (unsigned long long)length, (unsigned long long)(VMDK_MAX_GD_ENTRIES * VMDK_GT_COVERAGE));
    if (descriptor_bytes > 0)
        out->descriptor_bytes = imgtk_round_up(
            descriptor_bytes > VMDK_DESCRIPTOR_ROOM ? descriptor_bytes : VMDK_DESCRIPTOR_ROOM, VMDK_SECTOR);
    uint64_t gd_bytes = imgtk_round_up(out->gd_entries * 4, VMDK_SECTOR);
    uint64_t gt_bytes = out->gd_entries * VMDK_GT_BYTES;
    out->rgd_offset = VMDK_HOSTED_HEADER_SIZE + out->descriptor_bytes;
    out->rgt_offset = out->rgd_offset + gd_bytes;
    out->gd_offset = out->rgt_offset + gt_bytes;
    out->gt_offset = out->gd_offset + gd_bytes;
    out->data_offset = imgtk_round_up(out->gt_offset + gt_bytes, VMDK_GRAIN_SIZE);
    return 0;
}

void vmdk_header_format(const struct vmdk_header_source *source, uint8_t out[VMDK_SECTOR])
{
    memset(out, 0, VMDK_SECTOR);
    imgtk_put_le32(out + VMDK_H_MAGIC, VMDK_HOSTED_MAGIC);
    imgtk_put_le32(out + VMDK_H_VERSION, source->version);
    imgtk_put_le32(out + VMDK_H_FLAGS, source->flags);
    imgtk_put_le64(out + VMDK_H_CAPACITY, source->capacity / VMDK_SECTOR);
    imgtk_put_le64(out + VMDK_H_GRAIN_SIZE, VMDK_GRAIN_SIZE / VMDK_SECTOR);
    imgtk_put_le64(out + VMDK_H_DESCRIPTOR_OFFSET, source->descriptor_sectors ? 1 : 0);
    imgtk_put_le64(out + VMDK_H_DESCRIPTOR_SIZE, source->descriptor_sectors);
    imgtk_put_le32(out + VMDK_H_GTES_PER_GT, VMDK_GTES);
    imgtk_put_le64(out + VMDK_H_RGD_OFFSET, source->rgd_sector);
    imgtk_put_le64(out + VMDK_H_GD_OFFSET, source->gd_sector);
    imgtk_put_le64(out + VMDK_H_OVERHEAD, source->overhead_sectors);
    memcpy(out + VMDK_H_NEWLINES, "\n \r\n", 4);
    imgtk_put_le16(out + VMDK_H_COMPRESSION, source->compression);
}
