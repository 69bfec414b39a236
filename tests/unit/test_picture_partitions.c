#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <imgtk/bytes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "partition_tables.h"

#define DISK_SECTORS 4096u
#define DISK_SIZE (DISK_SECTORS * 512u)

static uint8_t disk[DISK_SIZE];

/* Reads the disk and wants this status. */
static struct partition_table *read_disk(int expected)
{
    static struct partition_table table;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = partitions_parse(disk, sizeof disk, &table, &err);
    if (status != expected)
        print_message("%d: %s\n", status, err.message);
    assert_int_equal(status, expected);
    if (expected)
        assert_int_equal(table.count, 0);
    return &table;
}

/* What the message of a refusal has to say. */
static void assert_refused(int expected, const char *words)
{
    static struct partition_table table;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(partitions_parse(disk, sizeof disk, &table, &err), expected);
    if (!strstr(err.message, words))
        fail_msg("'%s' is not in '%s'", words, err.message);
    assert_int_equal(table.count, 0);
    assert_int_equal(table.scheme, PARTITION_SCHEME_NONE);
}

static void assert_partition(const struct partition *partition, unsigned number, uint64_t start_sectors,
                             uint64_t length_sectors, const char *type, const char *name)
{
    assert_int_equal(partition->number, number);
    assert_int_equal(partition->start, start_sectors * 512);
    assert_int_equal(partition->length, length_sectors * 512);
    assert_string_equal(partition->type, type);
    assert_string_equal(partition->name, name);
}

/* ---- MBR ------------------------------------------------------------------ */

static void put_mbr_entry(uint32_t sector, size_t index, uint8_t type, uint32_t start, uint32_t length)
{
    uint8_t *at = disk + sector * 512u;
    uint8_t *entry = at + 446 + index * 16;
    entry[4] = type;
    imgtk_put_le32(entry + 8, start);
    imgtk_put_le32(entry + 12, length);
    imgtk_put_le16(at + 510, 0xaa55);
}

static int empty_disk(void **state)
{
    (void)state;
    memset(disk, 0, sizeof disk);
    return 0;
}

/* Two primary partitions and an extended one with two logical ones in it. */
static int mbr_disk(void **state)
{
    empty_disk(state);
    put_mbr_entry(0, 0, 0x83, 2048, 500);
    put_mbr_entry(0, 1, 0x82, 64, 100);
    put_mbr_entry(0, 2, MBR_EXTENDED, 3000, 1000);
    put_mbr_entry(3000, 0, 0x07, 10, 200);
    put_mbr_entry(3000, 1, MBR_EXTENDED, 500, 300);
    put_mbr_entry(3500, 0, 0xfd, 5, 100);
    return 0;
}

static void an_mbr_has_primary_and_logical_partitions(void **state)
{
    (void)state;
    const struct partition_table *table = read_disk(0);
    assert_int_equal(table->scheme, PARTITION_SCHEME_MBR);
    assert_int_equal(table->count, 4);
    assert_partition(&table->partitions[0], 2, 64, 100, "Linux swap", "");
    assert_partition(&table->partitions[1], 1, 2048, 500, "Linux", "");
    assert_partition(&table->partitions[2], 5, 3010, 200, "NTFS or exFAT", "");
    assert_partition(&table->partitions[3], 6, 3505, 100, "Linux RAID", "");
}

static void a_disk_without_a_table_has_none(void **state)
{
    (void)state;
    assert_int_equal(read_disk(0)->scheme, PARTITION_SCHEME_NONE);
    imgtk_put_le16(disk + 510, 0xaa55); /* as the boot sector of a FAT */
    assert_int_equal(read_disk(0)->scheme, PARTITION_SCHEME_NONE);
    memset(disk + 446, 'B', 64); /* as that of NTFS: a message where the table would be */
    assert_int_equal(read_disk(0)->scheme, PARTITION_SCHEME_NONE);
}

static void disks_that_are_smaller_than_a_sector_have_no_table(void **state)
{
    (void)state;
    struct partition_table table;
    assert_int_equal(partitions_parse(disk, 511, &table, NULL), 0);
    assert_int_equal(table.count, 0);
    assert_int_equal(partitions_parse(disk, 0, &table, NULL), 0);
}

static void partitions_beyond_the_end_are_refused(void **state)
{
    (void)state;
    put_mbr_entry(0, 0, 0x83, 2048, DISK_SECTORS - 2048 + 1);
    assert_refused(IMGTK_ECORRUPT, "partition 1 at 1048576");
    put_mbr_entry(0, 0, 0x83, UINT32_MAX, UINT32_MAX);
    assert_refused(IMGTK_ECORRUPT, "partition 1 at");
}

static void partitions_that_overlap_are_refused(void **state)
{
    (void)state;
    put_mbr_entry(0, 1, 0x82, 2547, 10);
    assert_refused(IMGTK_ECORRUPT, "the partitions 1 and 2 overlap");
    put_mbr_entry(0, 1, 0x82, 2548, 10);
    assert_int_equal(read_disk(0)->count, 4);
}

static void an_extended_partition_that_never_ends_is_refused(void **state)
{
    (void)state;
    put_mbr_entry(3500, 0, 0, 0, 0);
    put_mbr_entry(3500, 1, MBR_EXTENDED, 500, 300); /* itself */
    assert_refused(IMGTK_ELIMIT, "more than 128 links");
}

static void a_link_must_be_there(void **state)
{
    (void)state;
    put_mbr_entry(3000, 1, MBR_EXTENDED, DISK_SECTORS, 300);
    assert_refused(IMGTK_ECORRUPT, "lies beyond the disk's end");
    put_mbr_entry(3000, 1, MBR_EXTENDED, 501, 300);
    assert_refused(IMGTK_ECORRUPT, "no extended boot record at 1792512");
}

/* ---- GPT ------------------------------------------------------------------ */

static void put_crc(size_t sector_size, uint64_t lba)
{
    uint8_t *header = disk + lba * sector_size;
    imgtk_put_le32(header + 88, (uint32_t)crc32(0, disk + imgtk_le64(header + 72) * sector_size, 128 * 128));
    imgtk_put_le32(header + 16, 0);
    imgtk_put_le32(header + 16, (uint32_t)crc32(0, header, 92));
}

static void put_header(size_t sector_size, uint64_t lba, uint64_t entries_lba)
{
    uint8_t *header = disk + lba * sector_size;
    uint64_t sectors = DISK_SIZE / sector_size, table = 128 * 128 / sector_size;
    memset(header, 0, 92);
    memcpy(header, "EFI PART\0\0\1\0\x5c", 13);
    imgtk_put_le64(header + 24, lba);
    imgtk_put_le64(header + 32, sectors - lba);
    imgtk_put_le64(header + 40, 2 + table);
    imgtk_put_le64(header + 48, sectors - 2 - table);
    imgtk_put_le64(header + 72, entries_lba);
    imgtk_put_le32(header + 80, 128);
    imgtk_put_le32(header + 84, 128);
    put_crc(sector_size, lba);
}

static const uint8_t efi_system[16] = { 0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                        0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b };

static void put_gpt_entry(size_t sector_size, uint64_t entries_lba, size_t index, uint64_t first, uint64_t last)
{
    static const uint16_t name[] = { 'b', 0xfc, 0xd83d, 0xdcbe, 0xd800, 't' };
    uint8_t *entry = disk + entries_lba * sector_size + index * 128;
    memcpy(entry, efi_system, 16);
    imgtk_put_le64(entry + 32, first);
    imgtk_put_le64(entry + 40, last);
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        imgtk_put_le16(entry + 56 + 2 * i, name[i]);
}

static void make_gpt(size_t sector_size)
{
    uint64_t sectors = DISK_SIZE / sector_size, table = 128 * 128 / sector_size, second = sectors - 1 - table;
    memset(disk, 0, sizeof disk);
    put_mbr_entry(0, 0, MBR_PROTECTIVE, 1, DISK_SECTORS - 1);
    for (int copy = 0; copy < 2; copy++) {
        put_gpt_entry(sector_size, copy ? second : 2, 3, 100, 199);
        put_gpt_entry(sector_size, copy ? second : 2, 0, 200, 200);
        put_header(sector_size, copy ? sectors - 1 : 1, copy ? second : 2);
    }
}

static int gpt_disk(void **state)
{
    (void)state;
    make_gpt(512);
    return 0;
}

static void a_gpt_has_partitions_with_names(void **state)
{
    (void)state;
    const struct partition_table *table = read_disk(0);
    assert_int_equal(table->scheme, PARTITION_SCHEME_GPT);
    assert_false(table->from_backup);
    assert_int_equal(table->count, 2);
    assert_partition(&table->partitions[0], 4, 100, 100, "EFI System", "b\u00fc\U0001f4be\ufffdt");
    assert_partition(&table->partitions[1], 1, 200, 1, "EFI System", "b\u00fc\U0001f4be\ufffdt");
}

static void sectors_of_4_kib_are_found_out(void **state)
{
    (void)state;
    make_gpt(4096);
    const struct partition_table *table = read_disk(0);
    assert_int_equal(table->count, 2);
    assert_int_equal(table->partitions[0].start, 100 * 4096);
    assert_int_equal(table->partitions[1].length, 4096);
}

/* Any byte of the first copy may be wrong; then the second one is taken. */
static void every_byte_of_a_gpt_is_covered_by_its_checksums(void **state)
{
    (void)state;
    for (size_t at = 512; at < 512 + 92; at++) {
        disk[at] ^= 0x10;
        assert_true(read_disk(0)->from_backup);
        disk[at] ^= 0x10;
    }
    disk[1024 + 128 * 128 - 1] = 1;
    const struct partition_table *table = read_disk(0);
    assert_true(table->from_backup);
    assert_int_equal(table->count, 2);
}

static void a_gpt_without_a_good_copy_is_refused(void **state)
{
    (void)state;
    memset(disk + 511 * 512, 0, sizeof disk - 511 * 512);
    assert_int_equal(read_disk(0)->count, 2);
    disk[512 + 40] ^= 1;
    assert_refused(IMGTK_ECORRUPT, "the checksum of the GPT header is wrong");
    memset(disk + 512, 0, 512);
    assert_refused(IMGTK_ECORRUPT, "there is no GPT header in sector 1");
}

/* A header whose checksum is right says something impossible; the second copy is gone. */
static void assert_header_refused(size_t field, uint64_t value, size_t bytes, int expected, const char *words)
{
    make_gpt(512);
    memset(disk + sizeof disk - 512, 0, 512);
    if (bytes == 8)
        imgtk_put_le64(disk + 512 + field, value);
    else
        imgtk_put_le32(disk + 512 + field, (uint32_t)value);
    imgtk_put_le32(disk + 512 + 16, 0);
    uint32_t size = imgtk_le32(disk + 512 + 12);
    imgtk_put_le32(disk + 512 + 16, (uint32_t)crc32(0, disk + 512, size <= 512 ? size : 92));
    assert_refused(expected, words);
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    assert_header_refused(8, 0x20000, 4, IMGTK_EUNSUPPORTED, "revision 2");
    assert_header_refused(12, 91, 4, IMGTK_ECORRUPT, "has 91 bytes, not 92 to 512");
    assert_header_refused(12, UINT32_MAX, 4, IMGTK_ECORRUPT, "has 4294967295 bytes");
    assert_header_refused(24, 2, 8, IMGTK_ECORRUPT, "says that it is in sector 2");
    assert_header_refused(48, DISK_SECTORS, 8, IMGTK_ECORRUPT, "last usable sector 4096");
    assert_header_refused(72, DISK_SECTORS - 31, 8, IMGTK_ECORRUPT, "entries in sector 4065 lie beyond");
    assert_header_refused(72, UINT64_MAX, 8, IMGTK_ECORRUPT, "lie beyond");
    assert_header_refused(80, UINT32_MAX, 4, IMGTK_ELIMIT, "the limit is 1048576");
    assert_header_refused(84, 129, 4, IMGTK_ECORRUPT, "entries have 129 bytes");
    assert_header_refused(84, 64, 4, IMGTK_ECORRUPT, "entries have 64 bytes");
    assert_header_refused(88, 0, 4, IMGTK_ECORRUPT, "the checksum of the GPT's entries");
}

static void assert_entry_refused(uint64_t first, uint64_t last, const char *words)
{
    make_gpt(512);
    memset(disk + sizeof disk - 512, 0, 512);
    put_gpt_entry(512, 2, 3, first, last);
    put_crc(512, 1);
    assert_refused(IMGTK_ECORRUPT, words);
}

static void entries_that_lie_are_refused(void **state)
{
    (void)state;
    assert_entry_refused(33, 40, "partition 4 has the sectors 33 to 40");
    assert_entry_refused(100, 99, "partition 4 has the sectors 100 to 99");
    assert_entry_refused(100, DISK_SECTORS - 33, "usable are 34 to 4062");
    assert_entry_refused(100, UINT64_MAX, "partition 4");
    assert_entry_refused(100, 200, "the partitions 4 and 1 overlap");
}

static void more_partitions_than_can_be_told_are_counted(void **state)
{
    (void)state;
    struct partition_disk four = { .size = 4 };
    struct partition_table *table = calloc(1, sizeof *table);
    struct partition one = { .number = 1, .start = 0, .length = 1, .type = "" };
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        assert_int_equal(partition_add(&four, &one, table, NULL), 0);
    assert_false(table->truncated);
    assert_int_equal(partition_add(&four, &one, table, NULL), 0);
    assert_true(table->truncated);
    assert_int_equal(table->count, PARTITIONS_MAX);
    free(table);
}

/* ---- Anything ------------------------------------------------------------- */

static uint32_t next_random(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % below;
}

static void damage(uint32_t *seed, size_t at, size_t length)
{
    disk[at + next_random(seed, (uint32_t)length)] = (uint8_t)next_random(seed, 256);
}

static void damage_mbr(uint32_t *seed)
{
    static const size_t records[] = { 0, 3000 * 512, 3500 * 512 };
    mbr_disk(NULL);
    for (uint32_t i = next_random(seed, 6); i > 0; i--)
        damage(seed, records[next_random(seed, 3)] + 446, 66);
}

/* Its checksums are right, so that what is behind them is reached. */
static void damage_gpt(uint32_t *seed)
{
    make_gpt(512);
    for (uint32_t i = next_random(seed, 6); i > 0; i--)
        damage(seed, i % 2 ? 512 + 40 : 1024, i % 2 ? 16 : 512);
    put_crc(512, 1);
}

/* Whatever is on the disk, partitions lie within it, one behind the other. */
static void damaged_tables_never_lead_out_of_the_disk(void **state)
{
    (void)state;
    uint32_t seed = 1;
    size_t found = 0;
    for (int round = 0; round < 4000; round++) {
        static struct partition_table table;
        if (round % 2)
            damage_mbr(&seed);
        else
            damage_gpt(&seed);
        uint64_t end = 0;
        int status = partitions_parse(disk, sizeof disk, &table, NULL);
        for (size_t i = 0; status == 0 && i < table.count; i++, found++) {
            assert_true(table.partitions[i].start >= end);
            end = table.partitions[i].start + table.partitions[i].length;
            assert_true(end <= DISK_SIZE);
        }
    }
    assert_true(found > 4000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_mbr_has_primary_and_logical_partitions, mbr_disk),
        cmocka_unit_test_setup(a_disk_without_a_table_has_none, empty_disk),
        cmocka_unit_test_setup(disks_that_are_smaller_than_a_sector_have_no_table, mbr_disk),
        cmocka_unit_test_setup(partitions_beyond_the_end_are_refused, mbr_disk),
        cmocka_unit_test_setup(partitions_that_overlap_are_refused, mbr_disk),
        cmocka_unit_test_setup(an_extended_partition_that_never_ends_is_refused, mbr_disk),
        cmocka_unit_test_setup(a_link_must_be_there, mbr_disk),
        cmocka_unit_test_setup(a_gpt_has_partitions_with_names, gpt_disk),
        cmocka_unit_test(sectors_of_4_kib_are_found_out),
        cmocka_unit_test_setup(every_byte_of_a_gpt_is_covered_by_its_checksums, gpt_disk),
        cmocka_unit_test_setup(a_gpt_without_a_good_copy_is_refused, gpt_disk),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(entries_that_lie_are_refused),
        cmocka_unit_test(more_partitions_than_can_be_told_are_counted),
        cmocka_unit_test(damaged_tables_never_lead_out_of_the_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
