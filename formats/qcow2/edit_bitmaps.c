/*
 * Dirty bitmaps of an image that is edited: those that record changes get the bits of what is written, and all of them
 * the length that the disk has. Their clusters, tables and directory go to new places like all other metadata.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"

#define ALL_ONES UINT64_C(1)                  /* a table entry */
#define MAX_BYTES (UINT64_C(512) << 20)       /* of one bitmap's bits: QEMU reads no longer ones */

struct bitmap {
    uint64_t in_directory;   /* where its entry begins */
    uint64_t table_offset;   /* on disk */
    uint32_t table_size;     /* the same, entries */
    uint32_t flags;
    unsigned granularity_bits;
    bool known;              /* of a kind that this program can keep up to date */
    uint64_t *table;         /* host order; NULL: not loaded */
    uint64_t entries;        /* of it */
    uint8_t *placed;         /* a bit per entry: its cluster has been given a new place */
    bool changed;
};

struct qcow2_edit_bitmaps {
    struct bitmap *all;
    size_t count, room;
    uint8_t *directory;
    bool changed;
    uint8_t *bits;           /* the cluster at hand */
    struct bitmap *held;     /* whose it is; NULL: there is none */
    uint64_t held_index;
    bool held_changed;
};

static const struct qcow2_geometry *geometry_of(const struct qcow2_edit *edit)
{
    return &edit->image->geometry;
}

/* ---- Loading -------------------------------------------------------------------- */

static int add_bitmap(void *context, const struct qcow2_bitmap *from, struct imgtk_error *err)
{
    struct qcow2_edit *edit = context;
    struct qcow2_edit_bitmaps *bitmaps = edit->bitmaps;
    if (bitmaps->count == bitmaps->room)
        return imgtk_fail(err, IMGTK_ECORRUPT, "more bitmaps than the image says");
    struct bitmap *bitmap = &bitmaps->all[bitmaps->count++];
    bitmap->in_directory = from->offset - edit->image->extensions.bitmaps.directory_offset;
    bitmap->table_offset = from->table_offset;
    bitmap->table_size = from->table_size;
    bitmap->flags = from->flags;
    bitmap->granularity_bits = from->granularity_bits;
    bitmap->known = from->known;
    return 0;
}

/* The directory, which lies within the file, as everything does that the count has passed. */
static int load_directory(struct qcow2_edit *edit, struct imgtk_error *err)
{
    const struct qcow2_bitmaps *on_disk = &edit->image->extensions.bitmaps;
    struct qcow2_edit_bitmaps *bitmaps = edit->bitmaps = calloc(1, sizeof(*bitmaps));
    if (bitmaps) {
        bitmaps->room = on_disk->count;
        bitmaps->all = calloc(on_disk->count, sizeof(*bitmaps->all));
        bitmaps->directory = malloc((size_t)on_disk->directory_size);
        bitmaps->bits = malloc((size_t)geometry_of(edit)->cluster_size);
    }
    if (!bitmaps || !bitmaps->all || !bitmaps->directory || !bitmaps->bits)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for bitmaps");
    int status = imgtk_storage_pread(edit->image->file, bitmaps->directory, (size_t)on_disk->directory_size,
                                     on_disk->directory_offset, err);
    return status == 0 ? qcow2_bitmaps_walk(edit->image, add_bitmap, edit, err) : status;
}

static int load(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (edit->bitmaps)
        return 0;
    int status = qcow2_edit_count(edit, err);
    return status == 0 ? load_directory(edit, err) : status;
}

static int load_table(struct qcow2_edit *edit, struct bitmap *bitmap, struct imgtk_error *err)
{
    size_t bytes = (size_t)bitmap->table_size * 8;
    if (bitmap->table)
        return 0;
    bitmap->entries = bitmap->table_size;
    bitmap->table = malloc(bytes + 8);
    bitmap->placed = calloc(1, (size_t)bitmap->entries / 8 + 1);
    if (!bitmap->table || !bitmap->placed)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the table of a bitmap");
    int status = bytes ? imgtk_storage_pread(edit->image->file, bitmap->table, bytes, bitmap->table_offset, err) : 0;
    for (uint64_t i = 0; i < bitmap->entries && status == 0; i++)
        bitmap->table[i] = imgtk_be64(&bitmap->table[i]);
    return status;
}

void qcow2_edit_bitmaps_free(struct qcow2_edit *edit)
{
    struct qcow2_edit_bitmaps *bitmaps = edit->bitmaps;
    if (!bitmaps)
        return;
    for (size_t i = 0; i < bitmaps->count; i++) {
        free(bitmaps->all[i].table);
        free(bitmaps->all[i].placed);
    }
    free(bitmaps->all);
    free(bitmaps->directory);
    free(bitmaps->bits);
    free(bitmaps);
    edit->bitmaps = NULL;
}

/* ---- Clusters of bits -------------------------------------------------------------- */

static uint64_t bits_per_cluster(const struct qcow2_edit *edit)
{
    return geometry_of(edit)->cluster_size * 8;
}

static int write_held(struct qcow2_edit *edit, struct imgtk_error *err)
{
    struct qcow2_edit_bitmaps *bitmaps = edit->bitmaps;
    if (!bitmaps->held || !bitmaps->held_changed)
        return 0;
    bitmaps->held_changed = false;
    return imgtk_storage_pwrite(edit->image->file, bitmaps->bits, (size_t)geometry_of(edit)->cluster_size,
                                bitmaps->held->table[bitmaps->held_index] & QCOW2_BITMAP_TABLE_OFFSET_MASK, err);
}

static int hold(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t index, struct imgtk_error *err)
{
    struct qcow2_edit_bitmaps *bitmaps = edit->bitmaps;
    size_t cluster_size = (size_t)geometry_of(edit)->cluster_size;
    if (bitmaps->held == bitmap && bitmaps->held_index == index)
        return 0;
    int status = write_held(edit, err);
    uint64_t offset = bitmap->table[index] & QCOW2_BITMAP_TABLE_OFFSET_MASK;
    bitmaps->held = NULL;
    memset(bitmaps->bits, bitmap->table[index] == ALL_ONES ? 0xff : 0, cluster_size);
    if (status == 0 && offset != 0)
        status = imgtk_storage_pread(edit->image->file, bitmaps->bits, cluster_size, offset, err);
    if (status != 0)
        return status;
    bitmaps->held = bitmap;
    bitmaps->held_index = index;
    return 0;
}

/* Entry `index` becomes `entry`; what it had is released. */
static int replace(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t index, uint64_t entry,
                   struct imgtk_error *err)
{
    uint64_t old = bitmap->table[index] & QCOW2_BITMAP_TABLE_OFFSET_MASK;
    bitmap->table[index] = entry;
    bitmap->changed = true;
    return qcow2_edit_release_range(edit, old, old ? 1 : 0, err);
}

/* The cluster at hand will be changed. */
static int touch(struct qcow2_edit *edit, struct imgtk_error *err)
{
    struct bitmap *bitmap = edit->bitmaps->held;
    uint64_t index = edit->bitmaps->held_index, offset;
    edit->bitmaps->held_changed = true;
    if (bitmap->placed[index / 8] >> (index % 8) & 1)
        return 0;
    int status = qcow2_edit_allocate(edit, 1, QCOW2_USE_ALONE, &offset, err);
    if (status == 0)
        status = replace(edit, bitmap, index, offset, err);
    bitmap->placed[index / 8] |= (uint8_t)(1u << (index % 8));
    return status;
}

/* Bits [first, end) of the cluster at hand. */
static int set_bits(struct qcow2_edit *edit, uint64_t first, uint64_t end, bool value, struct imgtk_error *err)
{
    uint8_t *bits = edit->bitmaps->bits;
    int status = 0;
    for (uint64_t bit = first; bit < end && status == 0; bit++) {
        uint8_t mask = (uint8_t)(1u << (bit % 8));
        if (((bits[bit / 8] & mask) != 0) == value)
            continue;
        status = touch(edit, err);
        bits[bit / 8] ^= mask;
    }
    return status;
}

/* ---- Recording --------------------------------------------------------------------- */

static bool records(const struct bitmap *bitmap)
{
    return (bitmap->flags & QCOW2_BITMAP_AUTO) && !(bitmap->flags & QCOW2_BITMAP_IN_USE);
}

/* What cannot be kept up to date is marked as possibly out of date. */
static void spoil(struct qcow2_edit *edit, struct bitmap *bitmap)
{
    bitmap->flags |= QCOW2_BITMAP_IN_USE;
    imgtk_put_be32(edit->bitmaps->directory + bitmap->in_directory + QCOW2_BITMAP_AT_FLAGS, bitmap->flags);
    edit->bitmaps->changed = true;
}

/* Bits [first, end) of the cluster of entry `index`. */
static int record_bits(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t index, uint64_t first, uint64_t end,
                       struct imgtk_error *err)
{
    if (bitmap->table[index] == ALL_ONES)
        return 0;
    if (first == 0 && end == bits_per_cluster(edit)) {
        if (edit->bitmaps->held == bitmap && edit->bitmaps->held_index == index)
            edit->bitmaps->held = NULL;
        return replace(edit, bitmap, index, ALL_ONES, err);
    }
    int status = hold(edit, bitmap, index, err);
    return status == 0 ? set_bits(edit, first, end, true, err) : status;
}

static int record_in(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t offset, uint64_t length,
                     struct imgtk_error *err)
{
    uint64_t per_cluster = bits_per_cluster(edit), bit = offset >> bitmap->granularity_bits;
    uint64_t end = ((offset + length - 1) >> bitmap->granularity_bits) + 1;
    int status = load_table(edit, bitmap, err);
    if (status == 0 && (end - 1) / per_cluster >= bitmap->entries)
        spoil(edit, bitmap); /* shorter than the disk: QEMU does not use it either */
    while (status == 0 && bit < end && records(bitmap)) {
        uint64_t index = bit / per_cluster, until = imgtk_min_u64(end, (index + 1) * per_cluster);
        status = record_bits(edit, bitmap, index, bit % per_cluster, until - index * per_cluster, err);
        bit = until;
    }
    return status;
}

int qcow2_edit_bitmaps_record(struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (edit->same_disk || length == 0 || edit->image->extensions.bitmaps.count == 0)
        return 0;
    int status = load(edit, err);
    for (size_t i = 0; status == 0 && i < edit->bitmaps->count; i++) {
        struct bitmap *bitmap = &edit->bitmaps->all[i];
        if (records(bitmap) && !bitmap->known)
            spoil(edit, bitmap);
        else if (records(bitmap))
            status = record_in(edit, bitmap, offset, length, err);
    }
    return status;
}

/* ---- Sizes ------------------------------------------------------------------------------ */

static int resize_table(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t entries, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t i = entries; i < bitmap->entries && status == 0; i++)
        status = replace(edit, bitmap, i, 0, err);
    if (edit->bitmaps->held == bitmap && edit->bitmaps->held_index >= entries)
        edit->bitmaps->held = NULL;
    uint64_t *table = realloc(bitmap->table, (size_t)entries * 8 + 8);
    if (table)
        bitmap->table = table;
    uint8_t *placed = realloc(bitmap->placed, (size_t)entries / 8 + 1);
    if (placed)
        bitmap->placed = placed;
    if (!table || !placed)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the table of a bitmap");
    for (uint64_t i = bitmap->entries; i < entries; i++) {
        table[i] = 0;
        placed[i / 8] &= (uint8_t)~(1u << (i % 8));
    }
    bitmap->changed |= bitmap->entries != entries;
    bitmap->entries = entries;
    return status;
}

/* No bit stands for what is behind the end of the disk. */
static int clear_rest(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t size, struct imgtk_error *err)
{
    uint64_t bits = imgtk_div_round_up(size, UINT64_C(1) << bitmap->granularity_bits);
    uint64_t index = bits / bits_per_cluster(edit), first = bits % bits_per_cluster(edit);
    if (index >= bitmap->entries || (bitmap->table[index] & QCOW2_BITMAP_TABLE_OFFSET_MASK) == 0)
        return 0;
    int status = hold(edit, bitmap, index, err);
    return status == 0 ? set_bits(edit, first, bits_per_cluster(edit), false, err) : status;
}

static int resize(struct qcow2_edit *edit, struct bitmap *bitmap, uint64_t size, struct imgtk_error *err)
{
    uint64_t entries = qcow2_bitmap_entries(geometry_of(edit), bitmap->granularity_bits, size);
    if (entries > MAX_BYTES >> geometry_of(edit)->cluster_bits || entries > QCOW2_MAX_BITMAP_TABLE_ENTRIES)
        return imgtk_fail(err, IMGTK_ELIMIT, "a bitmap of a disk of %" PRIu64 " bytes is above the limit of %" PRIu64
                                             " bytes", size, MAX_BYTES);
    int status = load_table(edit, bitmap, err);
    if (status == 0)
        status = resize_table(edit, bitmap, entries, err);
    if (status == 0 && size == 0)
        spoil(edit, bitmap); /* QEMU opens no image in which an empty disk has one that can be relied on */
    return status == 0 ? clear_rest(edit, bitmap, size, err) : status;
}

struct fit {
    const struct qcow2_edit *edit;
    uint64_t size;
    bool fits;
};

static int look_at_fit(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err)
{
    struct fit *fit = context;
    const struct qcow2_geometry *geometry = geometry_of(fit->edit);
    (void)err;
    fit->fits &= qcow2_bitmap_entries(geometry, bitmap->granularity_bits, fit->size) == bitmap->table_size;
    return 0;
}

int qcow2_edit_bitmaps_resize(struct qcow2_edit *edit, uint64_t size, struct imgtk_error *err)
{
    struct fit fit = { edit, size, size >= edit->size };
    int status = qcow2_bitmaps_walk(edit->image, look_at_fit, &fit, err);
    if (status != 0 || edit->image->extensions.bitmaps.count == 0 || (fit.fits && !edit->bitmaps))
        return status;
    status = load(edit, err);
    for (size_t i = 0; status == 0 && i < edit->bitmaps->count; i++)
        status = resize(edit, &edit->bitmaps->all[i], size, err);
    return status;
}

/* ---- Writing -------------------------------------------------------------------------------- */

static int write_table(struct qcow2_edit *edit, struct bitmap *bitmap, struct imgtk_error *err)
{
    uint64_t bytes = bitmap->entries * 8, offset = 0;
    int status = qcow2_edit_release_range(edit, bitmap->table_offset, (uint64_t)bitmap->table_size * 8, err);
    if (status == 0 && bytes > 0)
        status = qcow2_edit_allocate(edit, qcow2_clusters(geometry_of(edit), bytes), QCOW2_USE_ALONE, &offset, err);
    for (uint64_t i = 0; i < bitmap->entries; i++)
        imgtk_put_be64(&bitmap->table[i], bitmap->table[i]); /* for the last time: it is loaded anew when needed */
    if (status == 0 && bytes > 0)
        status = imgtk_storage_pwrite(edit->image->file, bitmap->table, (size_t)bytes, offset, err);
    uint8_t *entry = edit->bitmaps->directory + bitmap->in_directory;
    imgtk_put_be64(entry + QCOW2_BITMAP_AT_TABLE_OFFSET, offset);
    imgtk_put_be32(entry + QCOW2_BITMAP_AT_TABLE_SIZE, (uint32_t)bitmap->entries);
    edit->bitmaps->changed = true;
    return status;
}

static int write_directory(struct qcow2_edit *edit, struct imgtk_error *err)
{
    const struct qcow2_bitmaps *on_disk = &edit->image->extensions.bitmaps;
    uint64_t offset = 0;
    int status = qcow2_edit_release_range(edit, on_disk->directory_offset, on_disk->directory_size, err);
    if (status == 0)
        status = qcow2_edit_allocate(edit, qcow2_clusters(geometry_of(edit), on_disk->directory_size), QCOW2_USE_ALONE,
                                     &offset, err);
    if (status == 0)
        status = imgtk_storage_pwrite(edit->image->file, edit->bitmaps->directory, (size_t)on_disk->directory_size,
                                      offset, err);
    return status == 0 ? qcow2_edit_put_bitmaps(edit, offset, err) : status;
}

int qcow2_edit_bitmaps_write(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (!edit->bitmaps)
        return 0;
    int status = write_held(edit, err);
    for (size_t i = 0; status == 0 && i < edit->bitmaps->count; i++)
        if (edit->bitmaps->all[i].changed)
            status = write_table(edit, &edit->bitmaps->all[i], err);
    if (status == 0 && edit->bitmaps->changed)
        status = write_directory(edit, err);
    return status;
}
