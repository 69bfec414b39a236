#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../formats/vmdk/writer.h"

#define FILE_SIZE (1u << 20)

/* A disk of 64 MiB: two grain tables. */
static void good(uint8_t header[VMDK_SECTOR])
{
    struct vmdk_header_source source = { .version = 1, .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT,
                                         .capacity = 64u << 20, .descriptor_sectors = 20, .rgd_sector = 21,
                                         .gd_sector = 30, .overhead_sectors = 128 };
    vmdk_header_format(&source, header);
}

static void assert_bad(const uint8_t header[VMDK_SECTOR], int status)
{
    struct vmdk_sparse out;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(vmdk_hosted_parse(header, FILE_SIZE, &out, &err), status);
    assert_int_not_equal(err.message[0], '\0');
}

static void test_good(void **state)
{
    uint8_t header[VMDK_SECTOR];
    struct vmdk_sparse out;
    (void)state;
    good(header);
    assert_int_equal(vmdk_hosted_parse(header, FILE_SIZE, &out, NULL), 0);
    assert_int_equal(out.capacity, 64u << 20);
    assert_int_equal(out.grain, 65536);
    assert_int_equal(out.gd_entries, 2);
    assert_int_equal(out.gd_offset, 30 * 512);
    assert_int_equal(out.rgd_offset, 21 * 512);
    assert_int_equal(out.descriptor_length, 20 * 512);
    assert_int_equal(out.first_byte, 21 * 512);
    assert_false(out.compressed || out.tables_at_end || out.descriptor_only || out.unclean);
}

static void bad_u32(size_t at, uint32_t value, int status)
{
    uint8_t header[VMDK_SECTOR];
    good(header);
    imgtk_put_le32(header + at, value);
    assert_bad(header, status);
}

static void bad_u64(size_t at, uint64_t value, int status)
{
    uint8_t header[VMDK_SECTOR];
    good(header);
    imgtk_put_le64(header + at, value);
    assert_bad(header, status);
}

static void test_bad_fields(void **state)
{
    (void)state;
    bad_u32(VMDK_H_MAGIC, 0, IMGTK_ECORRUPT);
    bad_u32(VMDK_H_VERSION, 0, IMGTK_EUNSUPPORTED);
    bad_u32(VMDK_H_VERSION, 4, IMGTK_EUNSUPPORTED);
    bad_u32(VMDK_H_FLAGS, 1u << 20, IMGTK_EUNSUPPORTED);
    bad_u32(VMDK_H_FLAGS, VMDK_FLAG_COMPRESSED, IMGTK_ECORRUPT);
    bad_u64(VMDK_H_CAPACITY, UINT64_MAX, IMGTK_ECORRUPT);
    bad_u64(VMDK_H_CAPACITY, VMDK_MAX_SIZE / VMDK_SECTOR, IMGTK_ELIMIT);
    bad_u64(VMDK_H_CAPACITY, (uint64_t)1 << 36, IMGTK_ECORRUPT); /* the directory would not fit into the file */
    bad_u64(VMDK_H_GRAIN_SIZE, 0, IMGTK_ECORRUPT);
    bad_u64(VMDK_H_GRAIN_SIZE, 96, IMGTK_ECORRUPT);
    bad_u64(VMDK_H_GRAIN_SIZE, (uint64_t)1 << 63, IMGTK_ECORRUPT);
    bad_u32(VMDK_H_GTES_PER_GT, 0, IMGTK_ECORRUPT);
    bad_u32(VMDK_H_GTES_PER_GT, 513, IMGTK_ECORRUPT);
    bad_u64(VMDK_H_DESCRIPTOR_SIZE, UINT64_MAX, IMGTK_ELIMIT);
    bad_u64(VMDK_H_DESCRIPTOR_OFFSET, UINT64_MAX, IMGTK_ECORRUPT);
    bad_u32(VMDK_H_NEWLINES, 0x0a0d0a0a, IMGTK_ECORRUPT);
}

static void test_copy_instead_of_a_directory_outside(void **state)
{
    uint8_t header[VMDK_SECTOR];
    struct vmdk_sparse out;
    (void)state;
    good(header);
    imgtk_put_le64(header + VMDK_H_GD_OFFSET, UINT64_MAX - 1);
    assert_int_equal(vmdk_hosted_parse(header, FILE_SIZE, &out, NULL), 0);
    assert_int_equal(out.gd_offset, 0);
    imgtk_put_le64(header + VMDK_H_RGD_OFFSET, FILE_SIZE / VMDK_SECTOR);
    assert_bad(header, IMGTK_ECORRUPT);
}

/* The header and the last three sectors of a stream. */
static void good_stream(uint8_t header[VMDK_SECTOR], uint8_t end[3 * VMDK_SECTOR])
{
    struct vmdk_header_source source = { .version = 3, .capacity = 64u << 20, .descriptor_sectors = 20,
                                         .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS,
                                         .gd_sector = VMDK_GD_AT_END, .overhead_sectors = 128, .compression = 1 };
    vmdk_header_format(&source, header);
    source.gd_sector = 1000;
    memset(end, 0, 3 * VMDK_SECTOR);
    imgtk_put_le64(end + VMDK_M_VALUE, 1);
    imgtk_put_le32(end + VMDK_M_TYPE, VMDK_MARKER_FOOTER);
    vmdk_header_format(&source, end + VMDK_SECTOR);
}

static int parse_stream(const uint8_t *header, const uint8_t *end, struct vmdk_sparse *out)
{
    assert_int_equal(vmdk_hosted_parse(header, FILE_SIZE, out, NULL), 0);
    assert_true(out->tables_at_end);
    return vmdk_footer_parse(end, FILE_SIZE, out, NULL);
}

static void test_footer(void **state)
{
    uint8_t header[VMDK_SECTOR], end[3 * VMDK_SECTOR];
    struct vmdk_sparse out;
    (void)state;
    good_stream(header, end);
    assert_int_equal(parse_stream(header, end, &out), 0);
    assert_int_equal(out.gd_offset, 1000 * 512);
    assert_true(out.compressed && out.markers && !out.tables_at_end);

    imgtk_put_le64(end + VMDK_SECTOR + VMDK_H_CAPACITY, 1000);
    assert_int_equal(parse_stream(header, end, &out), IMGTK_ECORRUPT);
    good_stream(header, end);
    imgtk_put_le64(end + VMDK_SECTOR + VMDK_H_GD_OFFSET, VMDK_GD_AT_END);
    assert_int_equal(parse_stream(header, end, &out), IMGTK_ECORRUPT);
    good_stream(header, end);
    imgtk_put_le32(end + VMDK_M_TYPE, VMDK_MARKER_GD);
    assert_int_equal(parse_stream(header, end, &out), IMGTK_ECORRUPT);
    good_stream(header, end);
    imgtk_put_le32(end + 2 * VMDK_SECTOR + VMDK_M_TYPE, VMDK_MARKER_GT);
    assert_int_equal(parse_stream(header, end, &out), IMGTK_ECORRUPT);
}

static void test_cowd(void **state)
{
    uint8_t header[VMDK_COWD_HEADER_SIZE] = { 'C', 'O', 'W', 'D', 1 };
    struct vmdk_sparse out;
    (void)state;
    imgtk_put_le32(header + VMDK_C_CAPACITY, 5000);
    imgtk_put_le32(header + VMDK_C_GRAIN_SIZE, 1);
    imgtk_put_le32(header + VMDK_C_GD_OFFSET, 4);
    imgtk_put_le32(header + VMDK_C_GD_ENTRIES, 2);
    assert_int_equal(vmdk_cowd_parse(header, FILE_SIZE, &out, NULL), 0);
    assert_int_equal(out.gd_entries, 2);
    imgtk_put_le32(header + VMDK_C_GD_ENTRIES, 1);
    assert_int_equal(vmdk_cowd_parse(header, FILE_SIZE, &out, NULL), IMGTK_ECORRUPT);
    imgtk_put_le32(header + VMDK_C_GD_ENTRIES, 2);
    imgtk_put_le32(header + VMDK_C_GD_OFFSET, UINT32_MAX);
    assert_int_equal(vmdk_cowd_parse(header, FILE_SIZE, &out, NULL), IMGTK_ECORRUPT);
}

static void test_layout_for_writing(void **state)
{
    struct vmdk_tables tables;
    (void)state;
    /* 10 MiB with a descriptor: what VMware's and QEMU's tools lay out. */
    assert_int_equal(vmdk_tables_place(10u << 20, 400, &tables, NULL), 0);
    assert_int_equal(tables.gd_entries, 1);
    assert_int_equal(tables.rgd_offset, 21 * 512);
    assert_int_equal(tables.gd_offset, 26 * 512);
    assert_int_equal(tables.data_offset, 128 * 512);
    assert_int_equal(vmdk_tables_place(VMDK_MAX_GD_ENTRIES * VMDK_GT_COVERAGE + 1, 0, &tables, NULL), IMGTK_ELIMIT);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),   cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_footer), cmocka_unit_test(test_copy_instead_of_a_directory_outside),
        cmocka_unit_test(test_cowd),   cmocka_unit_test(test_layout_for_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
