/*
 * A disk that loses writes, as in a power cut: those behind a given one, and one before it that was not flushed. And a
 * small qcow2 image on it, made byte by byte. Included by the tests of what writes such images in place.
 */
#ifndef IMGTK_TEST_LOSING_DISK_H
#define IMGTK_TEST_LOSING_DISK_H

#include <string.h>

#include "../../formats/qcow2/qcow2.h"
#include "imgtk/image.h"
#include "storage/storage.h"

enum { MAX_FILE = 64 << 10 };

struct disk {
    uint8_t bytes[MAX_FILE];
    size_t size;
    uint8_t seen[MAX_FILE];   /* what the process reads back, whether it will last or not */
    size_t seen_size;
    unsigned writes, allowed; /* those beyond `allowed` are lost, as in a power cut */
    unsigned lost;            /* one of the earlier writes that never reached the disk: it was not flushed; 0: none */
    unsigned flushed;         /* writes that were flushed */
    unsigned safe;            /* of those, when the last allowed one was made */
};

static void disk_close(void *handle)
{
    (void)handle;
}

static int disk_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                     struct imgtk_error *err)
{
    (void)name, (void)flags, (void)opts, (void)handle;
    return imgtk_fail(err, IMGTK_EINVAL, "not to be opened");
}

static int disk_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    (void)err;
    *out = ((const struct disk *)handle)->seen_size;
    return 0;
}

static int disk_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    (void)err;
    const struct disk *disk = handle;
    *done = offset < disk->seen_size ? (size_t)imgtk_min_u64(length, disk->seen_size - offset) : 0;
    memcpy(buf, disk->seen + (*done ? offset : 0), *done);
    return 0;
}

/* Counts a write, and tells whether it will be there after the power cut. */
static bool lasts(struct disk *disk)
{
    disk->writes++;
    if (disk->writes == disk->allowed)
        disk->safe = disk->flushed;
    return disk->writes <= disk->allowed && disk->writes != disk->lost;
}

static int disk_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    (void)err;
    struct disk *disk = handle;
    assert_true(imgtk_range_fits(offset, length, MAX_FILE));
    memcpy(disk->seen + offset, buf, length);
    if (offset + length > disk->seen_size)
        disk->seen_size = (size_t)(offset + length);
    if (!lasts(disk))
        return 0;
    memcpy(disk->bytes + offset, buf, length);
    if (offset + length > disk->size)
        disk->size = (size_t)(offset + length);
    return 0;
}

static int disk_flush(void *handle, struct imgtk_error *err)
{
    (void)err;
    struct disk *disk = handle;
    disk->flushed = disk->writes;
    return 0;
}

static int disk_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    (void)err;
    struct disk *disk = handle;
    assert_true(size <= disk->seen_size); /* nobody makes it larger */
    memset(disk->seen + size, 0, disk->seen_size - (size_t)size);
    disk->seen_size = (size_t)size;
    if (!lasts(disk) || size >= disk->size)
        return 0;
    memset(disk->bytes + size, 0, disk->size - (size_t)size);
    disk->size = (size_t)size;
    return 0;
}

static uint32_t disk_flags(void *handle)
{
    (void)handle;
    return IMGTK_STORAGE_WRITABLE;
}

static const struct imgtk_storage_ops disk_ops = {
    .struct_size = sizeof(disk_ops), .name = "disk", .open = disk_open, .close = disk_close, .size = disk_size,
    .pread = disk_pread, .pwrite = disk_pwrite, .flush = disk_flush, .truncate = disk_truncate, .flags = disk_flags,
};

/* The disk as a process finds it that begins after the power cut. */
static int disk_wrap(struct disk *disk, struct imgtk_storage **out, struct imgtk_error *err)
{
    memcpy(disk->seen, disk->bytes, sizeof(disk->bytes));
    disk->seen_size = disk->size;
    return storage_wrap(&disk_ops, disk, "disk", out, err);
}

/* ---- An image --------------------------------------------------------------- */

enum { CLUSTER = 512, REFCOUNTS = 1, BLOCK = 2, L1 = 3, L2 = 4, DATA = 5, GUEST = 8, CLUSTERS = DATA + GUEST };

static void set_refcount(struct disk *disk, unsigned cluster, uint16_t value)
{
    imgtk_put_be16(disk->bytes + BLOCK * CLUSTER + 2 * cluster, value);
}

static void set_entry(struct disk *disk, unsigned guest, uint64_t entry)
{
    imgtk_put_be64(disk->bytes + L2 * CLUSTER + 8 * guest, entry);
}

/* Eight clusters of data, all of it sound. */
static void make_image(struct disk *disk)
{
    memset(disk, 0, sizeof(*disk));
    disk->size = CLUSTERS * CLUSTER;
    disk->allowed = UINT32_MAX;
    uint8_t *header = disk->bytes;
    imgtk_put_be32(header + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    imgtk_put_be32(header + QCOW2_AT_VERSION, 3);
    imgtk_put_be32(header + QCOW2_AT_CLUSTER_BITS, 9);
    imgtk_put_be64(header + QCOW2_AT_SIZE, GUEST * CLUSTER);
    imgtk_put_be32(header + QCOW2_AT_L1_SIZE, 1);
    imgtk_put_be64(header + QCOW2_AT_L1_OFFSET, L1 * CLUSTER);
    imgtk_put_be64(header + QCOW2_AT_REFCOUNT_TABLE_OFFSET, REFCOUNTS * CLUSTER);
    imgtk_put_be32(header + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 1);
    imgtk_put_be32(header + QCOW2_AT_REFCOUNT_ORDER, 4);
    imgtk_put_be32(header + QCOW2_AT_HEADER_LENGTH, QCOW2_V3_HEADER_LENGTH);
    imgtk_put_be64(disk->bytes + REFCOUNTS * CLUSTER, BLOCK * CLUSTER);
    imgtk_put_be64(disk->bytes + L1 * CLUSTER, (L2 * CLUSTER) | QCOW2_COPIED);
    for (unsigned i = 0; i < CLUSTERS; i++)
        set_refcount(disk, i, 1);
    for (unsigned i = 0; i < GUEST; i++) {
        set_entry(disk, i, ((DATA + i) * CLUSTER) | QCOW2_COPIED);
        memset(disk->bytes + (DATA + i) * CLUSTER, (int)('a' + i), CLUSTER);
    }
}

#endif
