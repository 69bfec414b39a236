#include <inttypes.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

int vhdx_bat_entry(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t index, uint64_t *out,
                   struct imgtk_error *err)
{
    const uint8_t *entry;
    int status = vhdx_table_at(image, tables, image->regions.bat.offset + index * VHDX_BAT_ENTRY_SIZE, &entry, err);
    if (!status)
        *out = imgtk_le64(entry);
    return status;
}

uint64_t vhdx_block_length(const struct vhdx_image *image, uint64_t block)
{
    uint64_t start = block * image->metadata.block_size;
    return imgtk_min_u64(image->metadata.block_size, image->metadata.disk_size - start);
}

uint64_t vhdx_bat_payload_index(const struct vhdx_image *image, uint64_t block)
{
    return block + block / image->chunk_ratio;
}

uint64_t vhdx_bat_bitmap_index(const struct vhdx_image *image, uint64_t block)
{
    return (block / image->chunk_ratio + 1) * (image->chunk_ratio + 1) - 1;
}

static bool overlaps(uint64_t offset, uint64_t length, uint64_t other, uint64_t other_length)
{
    return offset < other + other_length && other < offset + length;
}

int vhdx_block_fits(const struct vhdx_image *image, const char *what, uint64_t number, uint64_t host, uint64_t length,
                    struct imgtk_error *err)
{
    const struct vhdx_header *header = &image->header.header;
    const struct vhdx_region *bat = &image->regions.bat, *metadata = &image->regions.metadata;
    if (!imgtk_range_fits(host, length, image->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "%s %" PRIu64 " at %" PRIu64 " ends beyond the file's %" PRIu64 " bytes",
                          what, number, host, image->file_size);
    if (host < VHDX_SECTION_SIZE || overlaps(host, length, header->log_offset, header->log_length) ||
        overlaps(host, length, bat->offset, bat->length) ||
        overlaps(host, length, metadata->offset, metadata->length))
        return imgtk_fail(err, IMGTK_ECORRUPT, "%s %" PRIu64 " at %" PRIu64 " overlaps the file's own tables", what,
                          number, host);
    return 0;
}

static int data_run(struct vhdx_image *image, uint64_t block, uint64_t entry, uint64_t within, struct vhdx_run *out,
                    struct imgtk_error *err)
{
    uint64_t host = entry & VHDX_BAT_OFFSET_MASK;
    out->kind = IMGTK_EXTENT_DATA;
    out->unallocated = false;
    out->host = host + within;
    return vhdx_block_fits(image, "block", block, host, vhdx_block_length(image, block), err);
}

static int partial_run(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t block, uint64_t entry,
                       uint64_t within, struct vhdx_run *out, struct imgtk_error *err)
{
    bool present;
    if (!image->metadata.has_parent)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " is partially present on a disk without a parent",
                          block);
    int status = vhdx_bitmap_run(image, tables, block, within, out->length, &out->length, &present, err);
    if (status)
        return status;
    if (present)
        return data_run(image, block, entry, within, out, err);
    /* The sectors have a place in this file, but it holds nothing: for a walk they are the parent's. */
    out->kind = IMGTK_EXTENT_BACKING;
    out->unallocated = true;
    return 0;
}

/* The run at `within` a block, no longer than the block and out->length. */
static int block_run(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t block, uint64_t within,
                     struct vhdx_run *out, struct imgtk_error *err)
{
    uint64_t entry;
    int status = vhdx_bat_entry(image, tables, vhdx_bat_payload_index(image, block), &entry, err);
    if (status)
        return status;
    out->host = 0;
    switch ((enum vhdx_block_state)(entry & VHDX_BAT_STATE_MASK)) {
    case VHDX_BLOCK_NOT_PRESENT:
        out->kind = image->metadata.has_parent ? IMGTK_EXTENT_BACKING : IMGTK_EXTENT_ZERO;
        out->unallocated = true;
        return 0;
    case VHDX_BLOCK_UNDEFINED:
    case VHDX_BLOCK_ZERO:
    case VHDX_BLOCK_UNMAPPED:
        out->kind = IMGTK_EXTENT_ZERO;
        out->unallocated = false;
        return 0;
    case VHDX_BLOCK_FULLY_PRESENT:
        return data_run(image, block, entry, within, out, err);
    case VHDX_BLOCK_PARTIALLY_PRESENT:
        return partial_run(image, tables, block, entry, within, out, err);
    }
    return imgtk_fail(err, IMGTK_ECORRUPT, "block %" PRIu64 " has state %" PRIu64 ", which is none", block,
                      entry & VHDX_BAT_STATE_MASK);
}

static bool continues(const struct vhdx_run *run, const struct vhdx_run *next)
{
    return run->kind == next->kind && run->unallocated == next->unallocated &&
           (run->kind != IMGTK_EXTENT_DATA || run->host + run->length == next->host);
}

int vhdx_map(struct vhdx_image *image, uint64_t offset, uint64_t length, struct vhdx_run *out,
             struct imgtk_error *err)
{
    struct vhdx_tables tables = { 0 };
    uint64_t block_size = image->metadata.block_size;
    uint64_t end = offset + imgtk_min_u64(length, image->metadata.disk_size - offset);
    int status = 0;
    *out = (struct vhdx_run){ 0 };
    while (!status && offset + out->length < end) {
        uint64_t at = offset + out->length, within = at % block_size;
        struct vhdx_run next = { .length = imgtk_min_u64(block_size - within, end - at) };
        status = block_run(image, &tables, at / block_size, within, &next, err);
        if (!status && out->length && !continues(out, &next))
            break;
        next.host = out->length ? out->host : next.host;
        next.length += out->length;
        *out = next;
    }
    vhdx_tables_done(image, &tables);
    return status;
}
