#include <inttypes.h>
#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

/* Which MiB of the file a block has taken. */
struct taken {
    uint8_t *bits;
    uint64_t previous_end; /* of the last payload block: where the next one follows without a gap */
};

static bool take_mib(struct taken *taken, uint64_t mib)
{
    uint8_t bit = (uint8_t)(1u << (mib % 8));
    bool free_before = !(taken->bits[mib / 8] & bit);
    taken->bits[mib / 8] |= bit;
    return free_before;
}

/* Takes the place of a block; fails when it cannot lie there or shares it. */
static int take_block(struct vhdx_image *image, struct taken *taken, const char *what, uint64_t number, uint64_t host,
                      uint64_t length, struct imgtk_error *err)
{
    int status = vhdx_block_fits(image, what, number, host, length, err);
    if (status)
        return status;
    bool alone = true;
    for (uint64_t at = host; at < host + length; at += VHDX_MIB)
        alone = take_mib(taken, at / VHDX_MIB) && alone;
    if (!alone)
        return imgtk_fail(err, IMGTK_ECORRUPT, "%s %" PRIu64 " at %" PRIu64 " shares its place with another block",
                          what, number, host);
    return 0;
}

static int scan_payload(struct vhdx_image *image, struct taken *taken, uint64_t block, uint64_t entry,
                        struct vhdx_scan *scan, struct imgtk_error *err)
{
    uint64_t state = entry & VHDX_BAT_STATE_MASK, host = entry & VHDX_BAT_OFFSET_MASK;
    if (state > VHDX_BLOCK_UNMAPPED && state < VHDX_BLOCK_FULLY_PRESENT)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " has state %" PRIu64 ", which is none", block, state);
    if (state == VHDX_BLOCK_PARTIALLY_PRESENT && !image->metadata.has_parent)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " is partially present on a disk without a parent",
                          block);
    if (state < VHDX_BLOCK_FULLY_PRESENT)
        return 0;
    uint64_t length = vhdx_block_length(image, block);
    if (scan->allocated++ && host != taken->previous_end)
        scan->fragmented++;
    taken->previous_end = host + image->metadata.block_size;
    int status = take_block(image, taken, "block", block, host, length, err);
    if (!status && host + length > scan->end)
        scan->end = host + length;
    return status;
}

static int scan_bitmap(struct vhdx_image *image, struct taken *taken, uint64_t chunk, uint64_t entry,
                       struct vhdx_scan *scan, struct imgtk_error *err)
{
    uint64_t host = entry & VHDX_BAT_OFFSET_MASK;
    if (!image->metadata.has_parent || (entry & VHDX_BAT_STATE_MASK) != VHDX_BITMAP_PRESENT)
        return 0;
    int status = take_block(image, taken, "sector bitmap", chunk, host, VHDX_BITMAP_BLOCK_SIZE, err);
    if (!status && host + VHDX_BITMAP_BLOCK_SIZE > scan->end)
        scan->end = host + VHDX_BITMAP_BLOCK_SIZE;
    return status;
}

static int scan_entry(struct vhdx_image *image, struct taken *taken, uint64_t index, uint64_t entry,
                      struct vhdx_scan *scan, struct imgtk_error *err)
{
    uint64_t stride = image->chunk_ratio + 1;
    uint64_t chunk = index / stride, block = index - chunk;
    if (index % stride == image->chunk_ratio)
        return scan_bitmap(image, taken, chunk, entry, scan, err);
    return block < image->block_count ? scan_payload(image, taken, block, entry, scan, err) : 0;
}

static int scan_entries(struct vhdx_image *image, struct taken *taken, struct vhdx_scan *scan, struct imgtk_error *err)
{
    struct vhdx_tables tables = { 0 };
    struct imgtk_error fault;
    int status = 0;
    for (uint64_t i = 0; !status && i < image->bat_entries; i++) {
        uint64_t entry;
        status = vhdx_bat_entry(image, &tables, i, &entry, err);
        /* Most entries of most images. */
        if (status || entry == VHDX_BLOCK_NOT_PRESENT || entry == VHDX_BLOCK_ZERO)
            continue;
        if (scan_entry(image, taken, i, entry, scan, &fault))
            status = scan->finding(scan->context, &fault);
    }
    vhdx_tables_done(image, &tables);
    return status;
}

int vhdx_scan(struct vhdx_image *image, struct vhdx_scan *scan, struct imgtk_error *err)
{
    scan->allocated = scan->fragmented = 0;
    scan->end = image->regions.bat.offset + image->regions.bat.length;
    if (image->regions.metadata.offset + image->regions.metadata.length > scan->end)
        scan->end = image->regions.metadata.offset + image->regions.metadata.length;
    /* At most 16 MiB: the file's size is limited. */
    struct taken taken = { calloc((size_t)(image->file_size / VHDX_MIB / 8 + 1), 1), 0 };
    if (!taken.bits)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the map of a file of %" PRIu64 " bytes",
                          image->file_size);
    int status = scan_entries(image, &taken, scan, err);
    free(taken.bits);
    return status;
}
