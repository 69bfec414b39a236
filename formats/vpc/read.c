#include <string.h>

#include "vpc.h"

/* Zeroes the bytes of [within, within + length) of a block whose sectors its bitmap does not have. */
static void clear_unset(const uint8_t *bitmap, uint32_t within, uint8_t *buf, size_t length)
{
    uint32_t sector = within / VPC_SECTOR, end = (uint32_t)imgtk_div_round_up(within + (uint64_t)length, VPC_SECTOR);
    while (sector < end) {
        uint32_t run;
        bool set = vpc_bitmap_run(bitmap, sector, end, &run);
        uint64_t from = (uint64_t)sector * VPC_SECTOR, to = from + (uint64_t)run * VPC_SECTOR;
        from = from > within ? from : within;
        to = imgtk_min_u64(to, within + (uint64_t)length);
        if (!set)
            memset(buf + (from - within), 0, (size_t)(to - from));
        sector += run;
    }
}

static bool nothing_set(const uint8_t *bitmap, uint32_t within, size_t length)
{
    uint32_t first = within / VPC_SECTOR, run;
    uint32_t end = (uint32_t)imgtk_div_round_up(within + (uint64_t)length, VPC_SECTOR);
    return !vpc_bitmap_run(bitmap, first, end, &run) && run == end - first;
}

/* One request for the range, whatever its sectors are; those that are unset are zeroed afterwards. */
static int read_allocated(struct vpc *vpc, uint32_t entry, uint32_t within, uint8_t *buf, size_t length,
                          struct imgtk_error *err)
{
    const void *bitmap;
    int status = imgtk_cache_get(vpc->bitmaps, entry, &bitmap, err);
    if (status)
        return status;
    if (nothing_set(bitmap, within, length)) {
        memset(buf, 0, length);
    } else {
        uint64_t host = (uint64_t)entry * VPC_SECTOR + vpc->bitmap_size + within;
        status = imgtk_storage_pread(vpc->file, buf, length, host, err);
        if (!status)
            clear_unset(bitmap, within, buf, length);
    }
    imgtk_cache_put(vpc->bitmaps, bitmap);
    return status;
}

static int read_block(struct vpc *vpc, uint32_t block, uint32_t within, uint8_t *buf, size_t length,
                      struct imgtk_error *err)
{
    uint32_t entry;
    int status = vpc_bat_get(vpc, block, &entry, err);
    if (status)
        return status;
    if (entry == VPC_UNALLOCATED) {
        memset(buf, 0, length);
        return 0;
    }
    status = vpc_block_validate(vpc, block, entry, err);
    return status ? status : read_allocated(vpc, entry, within, buf, length, err);
}

int vpc_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct vpc *vpc = handle;
    uint8_t *to = buf;
    if (vpc->footer.type == VPC_FIXED)
        return imgtk_storage_pread(vpc->file, buf, length, offset, err);
    while (length > 0) {
        uint32_t within = (uint32_t)(offset & (vpc->header.block_size - 1));
        size_t piece = (size_t)imgtk_min_u64(length, vpc->header.block_size - within);
        int status = read_block(vpc, (uint32_t)(offset >> vpc->block_bits), within, to, piece, err);
        if (status)
            return status;
        to += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}
