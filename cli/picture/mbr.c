/* Master boot records, and the chain of them in an extended partition. Sectors have 512 bytes. */
#include <imgtk/bytes.h>
#include <string.h>

#include "partition_tables.h"

#define SECTOR 512u
#define ENTRIES_AT 446
#define ENTRY_SIZE 16
#define SIGNATURE_AT 510
#define FIRST_LOGICAL 5

static bool is_extended(uint8_t type)
{
    return type == MBR_EXTENDED || type == MBR_EXTENDED_LBA || type == MBR_EXTENDED_LINUX;
}

bool mbr_parse(const uint8_t sector[MBR_SIZE], struct mbr_entry entries[MBR_ENTRIES])
{
    if (imgtk_le16(sector + SIGNATURE_AT) != 0xaa55)
        return false;
    for (size_t i = 0; i < MBR_ENTRIES; i++) {
        const uint8_t *entry = sector + ENTRIES_AT + i * ENTRY_SIZE;
        if (entry[0] & 0x7f) /* neither active nor inactive: this is code or text */
            return false;
        entries[i] = (struct mbr_entry){ entry[4], imgtk_le32(entry + 8), imgtk_le32(entry + 12) };
        if (entries[i].length_sectors == 0)
            entries[i].type = 0;
    }
    return true;
}

bool mbr_is_protective(const struct mbr_entry entries[MBR_ENTRIES])
{
    for (size_t i = 0; i < MBR_ENTRIES; i++)
        if (entries[i].type == MBR_PROTECTIVE)
            return true;
    return false;
}

/* `base` is what the entry's start counts from. */
static int add_entry(const struct partition_disk *disk, const struct mbr_entry *entry, uint64_t base, unsigned number,
                     struct partition_table *out, struct imgtk_error *err)
{
    struct partition found = { .number = number, .start = base + (uint64_t)entry->start_sectors * SECTOR,
                               .length = (uint64_t)entry->length_sectors * SECTOR,
                               .type = partition_type_of_mbr(entry->type) };
    return partition_add(disk, &found, out, err);
}

static int read_link(const struct partition_disk *disk, uint64_t at, struct mbr_entry entries[MBR_ENTRIES],
                     struct imgtk_error *err)
{
    uint8_t sector[MBR_SIZE];
    if (!imgtk_range_fits(at, sizeof sector, disk->size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "an extended boot record at %llu lies beyond the disk's end at %llu",
                          (unsigned long long)at, (unsigned long long)disk->size);
    int status = disk->read(disk->context, sector, sizeof sector, at, err);
    if (status == 0 && !mbr_parse(sector, entries))
        status = imgtk_fail(err, IMGTK_ECORRUPT, "there is no extended boot record at %llu", (unsigned long long)at);
    return status;
}

/*
 * Each link has a partition, counted from itself, and the next link, counted from the extended partition's beginning.
 * The chain need not be in order, so that a loop shows only in its length.
 */
static int read_logical(const struct partition_disk *disk, const struct mbr_entry *extended,
                        struct partition_table *out, struct imgtk_error *err)
{
    uint64_t base = (uint64_t)extended->start_sectors * SECTOR, at = base;
    for (unsigned i = 0; i < LOGICAL_PARTITIONS_MAX; i++) {
        struct mbr_entry entries[MBR_ENTRIES];
        int status = read_link(disk, at, entries, err);
        if (status == 0 && entries[0].type != 0)
            status = add_entry(disk, &entries[0], at, FIRST_LOGICAL + i, out, err);
        if (status || !is_extended(entries[1].type))
            return status;
        at = base + (uint64_t)entries[1].start_sectors * SECTOR;
    }
    return imgtk_fail(err, IMGTK_ELIMIT, "the extended partition has more than %d links", LOGICAL_PARTITIONS_MAX);
}

int mbr_read(const struct partition_disk *disk, const struct mbr_entry entries[MBR_ENTRIES],
             struct partition_table *out, struct imgtk_error *err)
{
    int status = 0;
    for (unsigned i = 0; i < MBR_ENTRIES && status == 0; i++) {
        if (is_extended(entries[i].type))
            status = read_logical(disk, &entries[i], out, err);
        else if (entries[i].type != 0)
            status = add_entry(disk, &entries[i], 0, i + 1, out, err);
    }
    if (out->count > 0)
        out->scheme = PARTITION_SCHEME_MBR;
    return status;
}
