#include "partitions.h"

#include <imgtk/bytes.h>
#include <stdlib.h>
#include <string.h>

#include "partition_tables.h"

int partition_add(const struct partition_disk *disk, const struct partition *found, struct partition_table *out,
                  struct imgtk_error *err)
{
    if (!imgtk_range_fits(found->start, found->length, disk->size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "partition %u at %llu has %llu bytes and the disk only %llu",
                          found->number, (unsigned long long)found->start, (unsigned long long)found->length,
                          (unsigned long long)disk->size);
    if (out->count == PARTITIONS_MAX)
        out->truncated = true;
    else
        out->partitions[out->count++] = *found;
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const struct partition *left = a, *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

static int check_overlap(const struct partition_table *table, struct imgtk_error *err)
{
    for (size_t i = 1; i < table->count; i++) {
        const struct partition *before = &table->partitions[i - 1], *after = &table->partitions[i];
        if (before->start + before->length > after->start)
            return imgtk_fail(err, IMGTK_ECORRUPT, "the partitions %u and %u overlap", before->number, after->number);
    }
    return 0;
}

static int read_table(const struct partition_disk *disk, struct partition_table *out, struct imgtk_error *err)
{
    uint8_t sector[MBR_SIZE];
    struct mbr_entry entries[MBR_ENTRIES];
    if (disk->size < sizeof sector)
        return 0;
    int status = disk->read(disk->context, sector, sizeof sector, 0, err);
    if (status || !mbr_parse(sector, entries))
        return status;
    return mbr_is_protective(entries) ? gpt_read(disk, out, err) : mbr_read(disk, entries, out, err);
}

int partitions_read(const struct partition_disk *disk, struct partition_table *out, struct imgtk_error *err)
{
    *out = (struct partition_table){ .scheme = PARTITION_SCHEME_NONE };
    int status = read_table(disk, out, err);
    qsort(out->partitions, out->count, sizeof out->partitions[0], by_start);
    if (status == 0)
        status = check_overlap(out, err);
    if (status)
        *out = (struct partition_table){ .scheme = PARTITION_SCHEME_NONE };
    return status;
}

/* ---- In memory ------------------------------------------------------------ */

static int read_memory(void *context, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    (void)err;
    memcpy(buf, (const uint8_t *)context + offset, length);
    return 0;
}

int partitions_parse(const uint8_t *bytes, size_t size, struct partition_table *out, struct imgtk_error *err)
{
    struct partition_disk disk = { .size = size, .read = read_memory, .context = (void *)(uintptr_t)bytes };
    return partitions_read(&disk, out, err);
}
