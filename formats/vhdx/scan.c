#include <inttypes.h>
#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

/* Which MiB of the file a block has taken. */
struct taken {
    uint8_t *bits;
    uint8_t *places;       /* which one anything has; NULL: not asked for */
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

/* A block that holds no data may still have its place. */
static void take_place(const struct vhdx_image *image, struct taken *taken, uint64_t host, uint64_t length)
{
    for (uint64_t at = host; taken->places && host != 0 && at < host + length && at < image->file_size; at += VHDX_MIB)
        taken->places[at / VHDX_MIB / 8] |= (uint8_t)(1u << (at / VHDX_MIB % 8));
}

static int check_reserved(const struct vhdx_scan *scan, const char *what, uint64_t number, uint64_t entry,
                          struct imgtk_error *err)
{
    if (!scan->strict || (entry & VHDX_BAT_RESERVED) == 0)
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT, "%s %" PRIu64 " has reserved bits set in its entry 0x%" PRIx64, what, number,
                      entry);
}

static int scan_payload(struct vhdx_image *image, struct taken *taken, uint64_t block, uint64_t entry,
                        struct vhdx_scan *scan, struct imgtk_error *err)
{
    uint64_t state = entry & VHDX_BAT_STATE_MASK, host = entry & VHDX_BAT_OFFSET_MASK;
    take_place(image, taken, host, image->metadata.block_size);
    if (state > VHDX_BLOCK_UNMAPPED && state < VHDX_BLOCK_FULLY_PRESENT)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " has state %" PRIu64 ", which is none", block, state);
    if (state == VHDX_BLOCK_PARTIALLY_PRESENT && !image->metadata.has_parent)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " is partially present on a disk without a parent",
                          block);
    if (state < VHDX_BLOCK_FULLY_PRESENT)
        return check_reserved(scan, "block", block, entry, err);
    uint64_t length = vhdx_block_length(image, block);
    if (scan->allocated++ && host != taken->previous_end)
        scan->fragmented++;
    taken->previous_end = host + image->metadata.block_size;
    int status = take_block(image, taken, "block", block, host, length, err);
    if (!status && host + length > scan->end)
        scan->end = host + length;
    return status ? status : check_reserved(scan, "block", block, entry, err);
}

static int scan_bitmap(struct vhdx_image *image, struct taken *taken, uint64_t chunk, uint64_t entry,
                       struct vhdx_scan *scan, struct imgtk_error *err)
{
    uint64_t host = entry & VHDX_BAT_OFFSET_MASK;
    take_place(image, taken, host, VHDX_BITMAP_BLOCK_SIZE);
    if (!image->metadata.has_parent || (entry & VHDX_BAT_STATE_MASK) != VHDX_BITMAP_PRESENT)
        return 0;
    int status = take_block(image, taken, "sector bitmap", chunk, host, VHDX_BITMAP_BLOCK_SIZE, err);
    if (!status && host + VHDX_BITMAP_BLOCK_SIZE > scan->end)
        scan->end = host + VHDX_BITMAP_BLOCK_SIZE;
    return status ? status : check_reserved(scan, "sector bitmap", chunk, entry, err);
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

static bool is_taken(const struct taken *taken, uint64_t mib)
{
    return taken->places[mib / 8] >> (mib % 8) & 1;
}

static uint64_t tables_end(const struct vhdx_image *image)
{
    const struct vhdx_region *bat = &image->regions.bat, *metadata = &image->regions.metadata;
    uint64_t bat_end = bat->offset + bat->length, metadata_end = metadata->offset + metadata->length;
    return bat_end > metadata_end ? bat_end : metadata_end;
}

/* QEMU leaves so much room between the two tables and the first block. */
static void take_reserve(const struct vhdx_image *image, struct taken *taken)
{
    uint64_t start = tables_end(image) / VHDX_MIB, mib = start;
    while (mib < start + 5 && mib < image->file_size / VHDX_MIB && !is_taken(taken, mib))
        mib++;
    take_place(image, taken, start * VHDX_MIB, (mib - start) * VHDX_MIB);
}

/* Runs of MiB that nothing names: less than a block may be there for the sake of alignment. */
static uint64_t count_leaked(const struct vhdx_image *image, const struct taken *taken)
{
    uint64_t run = 0, leaked = 0, end = image->file_size / VHDX_MIB;
    for (uint64_t mib = 1; mib < end; mib++) {
        run = is_taken(taken, mib) ? 0 : run + 1;
        if (run < image->metadata.block_size / VHDX_MIB)
            continue;
        leaked++;
        run = 0;
    }
    return leaked;
}

static void find_leaks(const struct vhdx_image *image, struct taken *taken, struct vhdx_scan *scan)
{
    const struct vhdx_header *header = &image->header.header;
    const struct vhdx_regions *regions = &image->regions;
    uint64_t others = imgtk_div_round_up(regions->other_length, image->metadata.block_size);
    take_place(image, taken, header->log_offset, header->log_length);
    take_place(image, taken, regions->bat.offset, regions->bat.length);
    take_place(image, taken, regions->metadata.offset, regions->metadata.length);
    take_reserve(image, taken);
    scan->leaked = count_leaked(image, taken);
    scan->leaked -= imgtk_min_u64(scan->leaked, others);
    uint64_t mib = image->file_size / VHDX_MIB;
    while (mib > 0 && !is_taken(taken, mib - 1))
        mib--;
    scan->named_end = mib * VHDX_MIB;
    uint64_t behind = (image->file_size - scan->named_end) / image->metadata.block_size;
    scan->leaked_behind = imgtk_min_u64(behind, scan->leaked);
}

int vhdx_scan(struct vhdx_image *image, struct vhdx_scan *scan, struct imgtk_error *err)
{
    scan->allocated = scan->fragmented = scan->leaked = scan->leaked_behind = 0;
    scan->end = tables_end(image);
    /* At most 16 MiB each: the file's size is limited. */
    size_t bytes = (size_t)(image->file_size / VHDX_MIB / 8 + 1);
    struct taken taken = { calloc(bytes, 1), scan->strict ? calloc(bytes, 1) : NULL, 0 };
    int status = 0;
    if (!taken.bits || (scan->strict && !taken.places))
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the maps of a file of %" PRIu64 " bytes",
                            image->file_size);
    if (!status)
        status = scan_entries(image, &taken, scan, err);
    /* Of a fixed disk, the blocks have their place though none is in the table. */
    if (!status && taken.places && !image->metadata.leave_allocated)
        find_leaks(image, &taken, scan);
    free(taken.bits);
    free(taken.places);
    return status;
}
