/* The two kinds of partition tables, for partitions.c. Parsers are functions of bytes alone. */
#ifndef IMGTK_CLI_PARTITION_TABLES_H
#define IMGTK_CLI_PARTITION_TABLES_H

#include "partitions.h"

#define MBR_SIZE 512u
#define MBR_ENTRIES 4

enum { MBR_EXTENDED = 0x05, MBR_EXTENDED_LBA = 0x0f, MBR_EXTENDED_LINUX = 0x85, MBR_PROTECTIVE = 0xee };

struct mbr_entry {
    uint8_t type;                           /* 0: unused */
    uint32_t start_sectors, length_sectors; /* of 512 bytes; in an extended partition the start is relative */
};

/* Whether the sector is an MBR; the boot sector of a file system, which has the same signature, is not. */
bool mbr_parse(const uint8_t sector[MBR_SIZE], struct mbr_entry entries[MBR_ENTRIES]);
bool mbr_is_protective(const struct mbr_entry entries[MBR_ENTRIES]);
int mbr_read(const struct partition_disk *disk, const struct mbr_entry entries[MBR_ENTRIES],
             struct partition_table *out, struct imgtk_error *err);

#define GPT_HEADER_SIZE 92u
#define GPT_ENTRY_SIZE 128u

struct gpt_header {
    uint64_t first_usable_lba, last_usable_lba, entries_lba, backup_lba;
    uint32_t entry_count, entry_size, entries_crc;
};

/* `sector` is the one at `lba` of a disk of disk_sectors; sector_size: 512 or 4096. */
int gpt_header_parse(const uint8_t *sector, size_t sector_size, uint64_t lba, uint64_t disk_sectors,
                     struct gpt_header *out, struct imgtk_error *err);
/* An entry that is unused leaves out->length 0. */
int gpt_entry_parse(const uint8_t entry[GPT_ENTRY_SIZE], const struct gpt_header *header, size_t sector_size,
                    struct partition *out, struct imgtk_error *err);
/* Reads the first copy, or the one at the end of the disk. */
int gpt_read(const struct partition_disk *disk, struct partition_table *out, struct imgtk_error *err);

/* What both do with a partition that is found: checks that it lies within the disk, and keeps it. */
int partition_add(const struct partition_disk *disk, const struct partition *found, struct partition_table *out,
                  struct imgtk_error *err);

#endif
