/* GUID partition tables: UEFI specification, chapter 5.3. */
#include <imgtk/bytes.h>
#include <imgtk/crc.h>
#include <stdlib.h>
#include <string.h>

#include "partition_tables.h"
#include "unicode.h"

#define SECTOR_MAX 4096u
#define GPT_SECTORS_MIN 3 /* the MBR and a header at each end */
#define NAME_AT 56
#define NAME_SIZE 72

static const uint32_t sector_sizes[] = { 512, SECTOR_MAX };

/* ---- The header ----------------------------------------------------------- */

/* The checksum covers the header with zeroes in its own place. */
static uint32_t header_crc(const uint8_t *sector, size_t size)
{
    static const uint8_t zero[4];
    uint32_t crc = imgtk_crc32(0, sector, 16);
    crc = imgtk_crc32(crc, zero, sizeof zero);
    return imgtk_crc32(crc, sector + 20, size - 20);
}

static int check_identity(const uint8_t *sector, size_t sector_size, uint64_t lba, struct imgtk_error *err)
{
    uint32_t size = imgtk_le32(sector + 12);
    if (memcmp(sector, "EFI PART", 8) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "there is no GPT header in sector %llu", (unsigned long long)lba);
    if (imgtk_le32(sector + 8) >> 16 != 1)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the GPT has revision %u, not 1", imgtk_le32(sector + 8) >> 16);
    if (size < GPT_HEADER_SIZE || size > sector_size)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the GPT header has %u bytes, not %u to %zu", size, GPT_HEADER_SIZE,
                          sector_size);
    if (header_crc(sector, size) != imgtk_le32(sector + 16))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the checksum of the GPT header is wrong");
    if (imgtk_le64(sector + 24) != lba)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the GPT header in sector %llu says that it is in sector %llu",
                          (unsigned long long)lba, (unsigned long long)imgtk_le64(sector + 24));
    return 0;
}

static int check_entries(const struct gpt_header *header, size_t sector_size, uint64_t disk_sectors,
                         struct imgtk_error *err)
{
    uint64_t bytes = (uint64_t)header->entry_count * header->entry_size;
    if (header->entry_size < GPT_ENTRY_SIZE || !imgtk_is_power_of_two(header->entry_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the GPT's entries have %u bytes, not 128 or a larger power of two",
                          header->entry_size);
    if (bytes > GPT_TABLE_MAX)
        return imgtk_fail(err, IMGTK_ELIMIT, "the GPT's entries take %llu bytes; the limit is %u",
                          (unsigned long long)bytes, GPT_TABLE_MAX);
    if (!imgtk_range_fits(header->entries_lba, imgtk_div_round_up(bytes, sector_size), disk_sectors))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the GPT's entries in sector %llu lie beyond the disk's end at %llu",
                          (unsigned long long)header->entries_lba, (unsigned long long)disk_sectors);
    if (header->last_usable_lba >= disk_sectors)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the GPT's last usable sector %llu lies beyond the disk's end at %llu",
                          (unsigned long long)header->last_usable_lba, (unsigned long long)disk_sectors);
    return 0;
}

int gpt_header_parse(const uint8_t *sector, size_t sector_size, uint64_t lba, uint64_t disk_sectors,
                     struct gpt_header *out, struct imgtk_error *err)
{
    int status = check_identity(sector, sector_size, lba, err);
    if (status)
        return status;
    *out = (struct gpt_header){ .backup_lba = imgtk_le64(sector + 32), .first_usable_lba = imgtk_le64(sector + 40),
                                .last_usable_lba = imgtk_le64(sector + 48), .entries_lba = imgtk_le64(sector + 72),
                                .entry_count = imgtk_le32(sector + 80), .entry_size = imgtk_le32(sector + 84),
                                .entries_crc = imgtk_le32(sector + 88) };
    return check_entries(out, sector_size, disk_sectors, err);
}

/* ---- The entries ---------------------------------------------------------- */

static void parse_name(const uint8_t *text, char out[PARTITION_NAME_SIZE])
{
    for (size_t at = 0; at < NAME_SIZE;) {
        uint32_t point = unicode_next_utf16(text, NAME_SIZE, &at, false);
        if (point == 0)
            break;
        out = unicode_put_utf8(out, point == UNICODE_MALFORMED ? UNICODE_REPLACEMENT : point);
    }
    *out = '\0';
}

int gpt_entry_parse(const uint8_t entry[GPT_ENTRY_SIZE], const struct gpt_header *header, size_t sector_size,
                    struct partition *out, struct imgtk_error *err)
{
    static const uint8_t unused[16];
    uint64_t first = imgtk_le64(entry + 32), last = imgtk_le64(entry + 40);
    out->length = 0;
    if (memcmp(entry, unused, sizeof unused) == 0)
        return 0;
    if (first < header->first_usable_lba || last < first || last > header->last_usable_lba)
        return imgtk_fail(err, IMGTK_ECORRUPT, "partition %u has the sectors %llu to %llu; usable are %llu to %llu",
                          out->number, (unsigned long long)first, (unsigned long long)last,
                          (unsigned long long)header->first_usable_lba, (unsigned long long)header->last_usable_lba);
    out->start = first * sector_size;
    out->length = (last - first + 1) * sector_size;
    out->type = partition_type_of_gpt(entry);
    parse_name(entry + NAME_AT, out->name);
    return 0;
}

static int add_entries(const struct partition_disk *disk, const struct gpt_header *header, size_t sector_size,
                       const uint8_t *entries, struct partition_table *out, struct imgtk_error *err)
{
    int status = 0;
    for (uint32_t i = 0; i < header->entry_count && status == 0; i++) {
        struct partition found = { .number = i + 1 };
        status = gpt_entry_parse(entries + (size_t)i * header->entry_size, header, sector_size, &found, err);
        if (status == 0 && found.length > 0)
            status = partition_add(disk, &found, out, err);
    }
    return status;
}

static int read_entries(const struct partition_disk *disk, const struct gpt_header *header, size_t sector_size,
                        struct partition_table *out, struct imgtk_error *err)
{
    size_t bytes = (size_t)header->entry_count * header->entry_size;
    uint8_t *entries = malloc(bytes + 1);
    if (!entries)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = disk->read(disk->context, entries, bytes, header->entries_lba * sector_size, err);
    if (status == 0 && imgtk_crc32(0, entries, bytes) != header->entries_crc)
        status = imgtk_fail(err, IMGTK_ECORRUPT, "the checksum of the GPT's entries is wrong");
    if (status == 0)
        status = add_entries(disk, header, sector_size, entries, out, err);
    free(entries);
    return status;
}

/* ---- The two copies ------------------------------------------------------- */

static int read_copy(const struct partition_disk *disk, size_t sector_size, uint64_t lba, struct partition_table *out,
                     struct imgtk_error *err)
{
    uint8_t sector[SECTOR_MAX];
    struct gpt_header header;
    out->count = 0;
    out->truncated = false;
    int status = disk->read(disk->context, sector, sector_size, lba * sector_size, err);
    if (status == 0)
        status = gpt_header_parse(sector, sector_size, lba, disk->size / sector_size, &header, err);
    return status ? status : read_entries(disk, &header, sector_size, out, err);
}

/* When no copy is good, what is wrong with the first one is told, read with the usual size of sectors. */
int gpt_read(const struct partition_disk *disk, struct partition_table *out, struct imgtk_error *err)
{
    struct imgtk_error first = IMGTK_ERROR_INIT, later = IMGTK_ERROR_INIT;
    imgtk_fail(&first, IMGTK_ECORRUPT, "the disk is too small for the GPT that its MBR promises");
    for (size_t copy = 0; copy < 2; copy++) {
        for (size_t i = 0; i < sizeof sector_sizes / sizeof sector_sizes[0]; i++) {
            uint64_t sectors = disk->size / sector_sizes[i];
            if (sectors < GPT_SECTORS_MIN)
                continue;
            out->from_backup = copy > 0;
            if (read_copy(disk, sector_sizes[i], copy ? sectors - 1 : 1, out, copy + i ? &later : &first) == 0) {
                out->scheme = PARTITION_SCHEME_GPT;
                return 0;
            }
        }
    }
    return imgtk_fail(err, first.status, "%s", first.message);
}
