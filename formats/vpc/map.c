/* What a layer says about a range: blocks, and within them sectors. */
#include "vpc.h"

/* Sector 0 is the highest bit of the first byte. */
static bool bit(const uint8_t *bitmap, uint32_t sector)
{
    return (bitmap[sector / 8] & (0x80u >> (sector % 8))) != 0;
}

bool vpc_bitmap_run(const uint8_t *bitmap, uint32_t first, uint32_t end, uint32_t *length)
{
    bool set = bit(bitmap, first);
    uint8_t whole = set ? 0xff : 0;
    uint32_t at = first + 1;
    while (at < end) {
        if (at % 8 == 0 && end - at >= 8 && bitmap[at / 8] == whole)
            at += 8;
        else if (bit(bitmap, at) == set)
            at++;
        else
            break;
    }
    *length = at - first;
    return set;
}

static int unallocated_extent(struct vpc *vpc, uint32_t block, uint64_t offset, uint64_t length,
                              struct imgtk_extent *out, struct imgtk_error *err)
{
    uint64_t wanted = imgtk_div_round_up(length, vpc->header.block_size) + 1;
    uint32_t count, limit = (uint32_t)imgtk_min_u64(wanted, vpc->blocks - block);
    int status = vpc_bat_unallocated(vpc, block, limit, &count, err);
    if (status)
        return status;
    count += count == 0; /* its entry was read before: the file may have changed since */
    uint64_t end = imgtk_min_u64(((uint64_t)block + count) << vpc->block_bits, vpc->size);
    *out = (struct imgtk_extent){ .length = end - offset, .kind = IMGTK_EXTENT_ZERO };
    if (vpc->footer.type == VPC_DIFFERENCING) {
        out->kind = IMGTK_EXTENT_BACKING;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
    }
    return 0;
}

static int block_extent(struct vpc *vpc, uint32_t block, uint32_t entry, uint64_t offset, struct imgtk_extent *out,
                        struct imgtk_error *err)
{
    const void *bitmap;
    int status = vpc_block_validate(vpc, block, entry, err);
    if (!status)
        status = imgtk_cache_get(vpc->bitmaps, entry, &bitmap, err);
    if (status)
        return status;
    uint32_t within = (uint32_t)(offset & (vpc->header.block_size - 1)), run;
    bool set = vpc_bitmap_run(bitmap, within / VPC_SECTOR, vpc->header.block_size / VPC_SECTOR, &run);
    imgtk_cache_put(vpc->bitmaps, bitmap);
    uint64_t end = imgtk_round_down(offset, VPC_SECTOR) + (uint64_t)run * VPC_SECTOR;
    *out = (struct imgtk_extent){ .length = imgtk_min_u64(end, vpc->size) - offset };
    if (!set && vpc->footer.type == VPC_DIFFERENCING) {
        out->kind = IMGTK_EXTENT_BACKING;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
        return 0;
    }
    out->kind = set ? IMGTK_EXTENT_DATA : IMGTK_EXTENT_ZERO;
    out->flags = IMGTK_EXTENT_PLAIN;
    out->file = vpc->file;
    out->host_offset = (uint64_t)entry * VPC_SECTOR + vpc->bitmap_size + within;
    return 0;
}

int vpc_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct vpc *vpc = handle;
    if (vpc->footer.type == VPC_FIXED) {
        *out = (struct imgtk_extent){ .length = vpc->size - offset, .kind = IMGTK_EXTENT_DATA,
                                      .flags = IMGTK_EXTENT_PLAIN | IMGTK_EXTENT_ASK_STORAGE,
                                      .file = vpc->file, .host_offset = offset };
        return 0;
    }
    uint32_t entry, block = (uint32_t)(offset >> vpc->block_bits);
    int status = vpc_bat_get(vpc, block, &entry, err);
    if (status)
        return status;
    if (entry == VPC_UNALLOCATED)
        return unallocated_extent(vpc, block, offset, length, out, err);
    return block_extent(vpc, block, entry, offset, out, err);
}
