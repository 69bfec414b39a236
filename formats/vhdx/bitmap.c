#include <inttypes.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

static int bitmap_host(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t block, uint64_t *out,
                       struct imgtk_error *err)
{
    uint64_t entry;
    int status = vhdx_bat_entry(image, tables, vhdx_bat_bitmap_index(image, block), &entry, err);
    if (status)
        return status;
    if ((entry & VHDX_BAT_STATE_MASK) != VHDX_BITMAP_PRESENT)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " is partially present, but its sector bitmap is not",
                          block);
    *out = entry & VHDX_BAT_OFFSET_MASK;
    return vhdx_block_fits(image, "sector bitmap", block / image->chunk_ratio, *out, VHDX_BITMAP_BLOCK_SIZE, err);
}

/* How many of the sectors from `first` on, at most `limit`, have the bit that `first` has; all lie in one slice. */
static uint64_t count_equal(const uint8_t *bits, unsigned first, uint64_t limit, bool *set)
{
    uint64_t at = first, end = first + limit;
    *set = (bits[first / 8] >> (first % 8)) & 1;
    uint8_t whole = *set ? 0xff : 0;
    while (at < end) {
        if (at % 8 == 0 && end - at >= 8 && bits[at / 8] == whole)
            at += 8;
        else if (((bits[at / 8] >> (at % 8)) & 1) == *set)
            at++;
        else
            break;
    }
    return at - first;
}

int vhdx_bitmap_run(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t block, uint64_t within,
                    uint64_t limit, uint64_t *length, bool *present, struct imgtk_error *err)
{
    uint64_t sector_size = image->metadata.logical_sector;
    uint64_t host = 0;
    int status = bitmap_host(image, tables, block, &host, err);
    if (status)
        return status;
    uint64_t first = block % image->chunk_ratio * (image->metadata.block_size / sector_size) + within / sector_size;
    uint64_t end = first + imgtk_div_round_up(within % sector_size + limit, sector_size);
    uint64_t at = first;
    while (at < end) {
        const uint8_t *bits;
        bool set;
        status = vhdx_table_at(image, tables, host + at / 8, &bits, err);
        if (status)
            return status;
        uint64_t in_slice = VHDX_SLICE * 8 - at % (VHDX_SLICE * 8);
        uint64_t asked = imgtk_min_u64(end - at, in_slice);
        uint64_t equal = count_equal(bits, at % 8, asked, &set);
        if (at == first)
            *present = set;
        else if (set != *present)
            break;
        at += equal;
        if (equal < asked)
            break;
    }
    *length = imgtk_min_u64((at - first) * sector_size - within % sector_size, limit);
    return 0;
}
