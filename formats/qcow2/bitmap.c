/* The directory of persistent dirty bitmaps. */
#include <inttypes.h>
#include <string.h>

#include "qcow2.h"

struct walk {
    struct qcow2 *image;
    uint64_t offset, end; /* next entry, end of the directory */
    char name[QCOW2_MAX_BITMAP_NAME + 1];
};

static int validate_directory(const struct qcow2 *image, struct imgtk_error *err)
{
    const struct qcow2_bitmaps *bitmaps = &image->extensions.bitmaps;
    if (bitmaps->count > QCOW2_MAX_BITMAPS)
        return imgtk_fail(err, IMGTK_ELIMIT, "%" PRIu32 " bitmaps are above the limit of %u", bitmaps->count,
                          QCOW2_MAX_BITMAPS);
    if (bitmaps->directory_size > QCOW2_MAX_BITMAP_DIRECTORY_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT, "bitmap directory of %" PRIu64 " bytes is above the limit of %" PRIu64,
                          bitmaps->directory_size, QCOW2_MAX_BITMAP_DIRECTORY_BYTES);
    if (bitmaps->directory_offset & (image->geometry.cluster_size - 1))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "bitmap directory offset 0x%" PRIx64 " is not a multiple of the cluster size %" PRIu64,
                          bitmaps->directory_offset, image->geometry.cluster_size);
    if (!imgtk_range_fits(bitmaps->directory_offset, bitmaps->directory_size, image->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "bitmap directory of %" PRIu64 " bytes at 0x%" PRIx64
                          " reaches beyond the end of the file at 0x%" PRIx64,
                          bitmaps->directory_size, bitmaps->directory_offset, image->file_size);
    return 0;
}

static int validate_entry(const struct qcow2_bitmap *bitmap, uint32_t name_length, struct imgtk_error *err)
{
    if (name_length == 0 || name_length > QCOW2_MAX_BITMAP_NAME)
        return imgtk_fail(err, IMGTK_ECORRUPT, "bitmap name of %" PRIu32 " bytes is not within 1 to %u", name_length,
                          QCOW2_MAX_BITMAP_NAME);
    if (bitmap->granularity_bits < QCOW2_MIN_BITMAP_GRANULARITY_BITS ||
        bitmap->granularity_bits > QCOW2_MAX_BITMAP_GRANULARITY_BITS)
        return imgtk_fail(err, IMGTK_ECORRUPT, "bitmap granularity 2^%u is not within 2^%u to 2^%u",
                          bitmap->granularity_bits, QCOW2_MIN_BITMAP_GRANULARITY_BITS,
                          QCOW2_MAX_BITMAP_GRANULARITY_BITS);
    if (bitmap->table_size > QCOW2_MAX_BITMAP_TABLE_ENTRIES)
        return imgtk_fail(err, IMGTK_ELIMIT, "bitmap table of %" PRIu32 " entries is above the limit of %u",
                          bitmap->table_size, QCOW2_MAX_BITMAP_TABLE_ENTRIES);
    return 0;
}

/* Extra data may say more than is known here, unless its flag says that this does no harm. */
static bool is_known(const uint8_t *entry, uint32_t flags)
{
    return entry[QCOW2_BITMAP_AT_TYPE] == QCOW2_BITMAP_DIRTY_TRACKING &&
           (imgtk_be32(entry + QCOW2_BITMAP_AT_EXTRA_LENGTH) == 0 || (flags & QCOW2_BITMAP_EXTRA_COMPATIBLE));
}

static int read_entry(struct walk *walk, struct qcow2_bitmap *out, struct imgtk_error *err)
{
    uint8_t bytes[QCOW2_BITMAP_ENTRY];
    if (!imgtk_range_fits(walk->offset, sizeof(bytes), walk->end))
        return imgtk_fail(err, IMGTK_ECORRUPT, "bitmap directory ends at 0x%" PRIx64 ", within an entry", walk->end);
    int status = imgtk_storage_pread(walk->image->file, bytes, sizeof(bytes), walk->offset, err);
    if (status != 0)
        return status;
    *out = (struct qcow2_bitmap){
        .offset = walk->offset,
        .table_offset = imgtk_be64(bytes + QCOW2_BITMAP_AT_TABLE_OFFSET),
        .table_size = imgtk_be32(bytes + QCOW2_BITMAP_AT_TABLE_SIZE),
        .flags = imgtk_be32(bytes + QCOW2_BITMAP_AT_FLAGS),
        .granularity_bits = bytes[QCOW2_BITMAP_AT_GRANULARITY_BITS],
        .name = walk->name,
    };
    out->known = is_known(bytes, out->flags);
    uint32_t name_length = imgtk_be16(bytes + QCOW2_BITMAP_AT_NAME_LENGTH);
    uint64_t name = walk->offset + sizeof(bytes) + imgtk_be32(bytes + QCOW2_BITMAP_AT_EXTRA_LENGTH);
    status = validate_entry(out, name_length, err);
    if (status != 0)
        return status;
    if (!imgtk_range_fits(name, name_length, walk->end))
        return imgtk_fail(err, IMGTK_ECORRUPT, "bitmap directory ends at 0x%" PRIx64 ", within an entry", walk->end);
    walk->name[name_length] = '\0';
    walk->offset = imgtk_round_up(name + name_length, 8);
    return imgtk_storage_pread(walk->image->file, walk->name, name_length, name, err);
}

uint64_t qcow2_bitmap_entries(const struct qcow2_geometry *geometry, unsigned granularity_bits, uint64_t size)
{
    uint64_t bits = imgtk_div_round_up(size, UINT64_C(1) << granularity_bits);
    return bits == 0 ? 1 : qcow2_clusters(geometry, imgtk_div_round_up(bits, 8));
}

int qcow2_bitmaps_walk(struct qcow2 *image, qcow2_bitmap_fn visit, void *context, struct imgtk_error *err)
{
    const struct qcow2_bitmaps *bitmaps = &image->extensions.bitmaps;
    if (bitmaps->count == 0)
        return 0;
    int status = validate_directory(image, err);
    struct walk walk = { .image = image, .offset = bitmaps->directory_offset };
    walk.end = walk.offset + bitmaps->directory_size;
    for (uint32_t i = 0; i < bitmaps->count && status == 0; i++) {
        struct qcow2_bitmap bitmap;
        status = read_entry(&walk, &bitmap, err);
        if (status == 0)
            status = visit(context, &bitmap, err);
    }
    return status;
}
