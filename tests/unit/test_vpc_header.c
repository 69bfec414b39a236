#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../formats/vpc/vpc.h"

#define GIB (UINT64_C(1) << 30)

static const struct vpc_footer sample = {
    .data_offset = 512,
    .timestamp = 0x12345678,
    .creator = { 'w', 'i', 'n', ' ' },
    .creator_os = { 'W', 'i', '2', 'k' },
    .creator_version = 0x00060003,
    .original_size = 5 * GIB,
    .current_size = 7 * GIB,
    .geometry = { 1000, 16, 63 },
    .type = VPC_DYNAMIC,
    .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
};

/* What the checksum must be, the other way round: all other bytes and its complement add up to nothing. */
static void seal(uint8_t *bytes, size_t size, size_t at)
{
    uint32_t sum = 0;
    imgtk_put_be32(bytes + at, 0);
    for (size_t i = 0; i < size; i++)
        sum += bytes[i];
    imgtk_put_be32(bytes + at, UINT32_MAX - sum);
}

/* ---- Footer ---------------------------------------------------------------- */

static void a_footer_survives_the_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[VPC_FOOTER_SIZE];
    struct vpc_footer footer;
    vpc_footer_encode(&sample, bytes);
    assert_memory_equal(bytes, "conectix\0\0\0\2\0\1\0\0", 16);
    assert_int_equal(vpc_footer_parse(bytes, &footer, NULL), 0);
    assert_int_equal(footer.data_offset, 512);
    assert_int_equal(footer.timestamp, 0x12345678);
    assert_memory_equal(footer.creator, "win ", 4);
    assert_memory_equal(footer.creator_os, "Wi2k", 4);
    assert_int_equal(footer.creator_version, 0x00060003);
    assert_int_equal(footer.original_size, 5 * GIB);
    assert_int_equal(footer.current_size, 7 * GIB);
    assert_int_equal(footer.geometry.cylinders, 1000);
    assert_int_equal(footer.geometry.heads, 16);
    assert_int_equal(footer.geometry.sectors, 63);
    assert_int_equal(footer.type, VPC_DYNAMIC);
    assert_memory_equal(footer.uuid, sample.uuid, UUID_SIZE);
}

static void every_byte_of_a_footer_is_covered_by_its_checksum(void **state)
{
    (void)state;
    for (size_t i = 0; i < VPC_FOOTER_SIZE; i++) {
        uint8_t bytes[VPC_FOOTER_SIZE];
        struct vpc_footer footer;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        vpc_footer_encode(&sample, bytes);
        bytes[i] ^= 0x40;
        assert_int_equal(vpc_footer_parse(bytes, &footer, &err), IMGTK_ECORRUPT);
        assert_non_null(strstr(err.message, i < 8 ? "no VHD footer" : "checksum"));
    }
}

static void footers_of_other_versions_and_types_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[VPC_FOOTER_SIZE];
    struct vpc_footer footer;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    vpc_footer_encode(&sample, bytes);
    imgtk_put_be32(bytes + VPC_FOOTER_AT_VERSION, 0x00020000);
    seal(bytes, sizeof(bytes), VPC_FOOTER_AT_CHECKSUM);
    assert_int_equal(vpc_footer_parse(bytes, &footer, &err), IMGTK_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "version 2.0"));
    static const uint32_t types[] = { 0, 1, 5, 6, UINT32_MAX };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        vpc_footer_encode(&sample, bytes);
        imgtk_put_be32(bytes + VPC_FOOTER_AT_TYPE, types[i]);
        seal(bytes, sizeof(bytes), VPC_FOOTER_AT_CHECKSUM);
        assert_int_equal(vpc_footer_parse(bytes, &footer, &err), IMGTK_EUNSUPPORTED);
        assert_non_null(strstr(err.message, "disk type"));
    }
}

/* ---- Dynamic header -------------------------------------------------------- */

static void make_header(uint8_t *bytes)
{
    struct vpc_header header = { .table_offset = 1536, .entries = 77, .block_size = 0x200000 };
    vpc_header_encode(&header, bytes);
}

static void a_header_survives_the_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[VPC_HEADER_SIZE];
    struct vpc_header header;
    make_header(bytes);
    assert_memory_equal(bytes, "cxsparse\xff\xff\xff\xff\xff\xff\xff\xff", 16);
    assert_int_equal(vpc_header_parse(bytes, &header, NULL), 0);
    assert_int_equal(header.table_offset, 1536);
    assert_int_equal(header.entries, 77);
    assert_int_equal(header.block_size, 0x200000);
    assert_true(uuid_is_null(header.parent_uuid));
}

static void every_byte_of_a_header_is_covered_by_its_checksum(void **state)
{
    (void)state;
    for (size_t i = 0; i < VPC_HEADER_SIZE; i++) {
        uint8_t bytes[VPC_HEADER_SIZE];
        struct vpc_header header;
        make_header(bytes);
        bytes[i] ^= 1;
        assert_int_equal(vpc_header_parse(bytes, &header, NULL), IMGTK_ECORRUPT);
    }
}

static void block_sizes_are_powers_of_two_of_a_sector_at_least(void **state)
{
    (void)state;
    static const struct {
        uint32_t size;
        int status;
    } cases[] = { { 0, IMGTK_ECORRUPT }, { 256, IMGTK_ECORRUPT }, { 512, 0 }, { 513, IMGTK_ECORRUPT },
                  { 0x80000, 0 }, { 0x180000, IMGTK_ECORRUPT }, { 0x80000000, 0 }, { UINT32_MAX, IMGTK_ECORRUPT } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bytes[VPC_HEADER_SIZE];
        struct vpc_header header;
        make_header(bytes);
        imgtk_put_be32(bytes + VPC_HEADER_AT_BLOCK_SIZE, cases[i].size);
        seal(bytes, sizeof(bytes), VPC_HEADER_AT_CHECKSUM);
        assert_int_equal(vpc_header_parse(bytes, &header, NULL), cases[i].status);
    }
}

static void locators_are_read(void **state)
{
    (void)state;
    uint8_t bytes[VPC_HEADER_SIZE];
    struct vpc_header header;
    make_header(bytes);
    uint8_t *last = bytes + VPC_HEADER_AT_LOCATORS + 7 * VPC_LOCATOR_SIZE;
    memcpy(last, "W2ru", 4);
    imgtk_put_be32(last + VPC_LOCATOR_AT_LENGTH, 24);
    imgtk_put_be64(last + VPC_LOCATOR_AT_OFFSET, 0x1234567890);
    seal(bytes, sizeof(bytes), VPC_HEADER_AT_CHECKSUM);
    assert_int_equal(vpc_header_parse(bytes, &header, NULL), 0);
    assert_int_equal(header.locators[7].platform, VPC_PLATFORM_W2RU);
    assert_int_equal(header.locators[7].length, 24);
    assert_int_equal(header.locators[7].offset, 0x1234567890);
    assert_int_equal(header.locators[0].platform, 0);
}

/* ---- Sizes ------------------------------------------------------------------ */

static uint64_t product(const struct vpc_geometry *geometry)
{
    return (uint64_t)geometry->cylinders * geometry->heads * geometry->sectors;
}

static void new_disks_have_the_geometry_that_qemu_gives_them(void **state)
{
    (void)state;
    /* asked, got, cylinders, heads, sectors: read from images that qemu-img made */
    static const uint64_t cases[][5] = {
        { 0, 0, 0, 0, 0 },
        { 1, 34816, 1, 4, 17 },
        { 34816, 34816, 1, 4, 17 },
        { 34817, 69632, 2, 4, 17 },
        { 10485760, 10514432, 302, 4, 17 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vpc_geometry geometry;
        uint64_t size;
        assert_int_equal(vpc_plan_size(cases[i][0], false, &geometry, &size, NULL), 0);
        assert_int_equal(size, cases[i][1]);
        assert_int_equal(geometry.cylinders, cases[i][2]);
        assert_int_equal(geometry.heads, cases[i][3]);
        assert_int_equal(geometry.sectors, cases[i][4]);
    }
}

static void rounding_never_loses_a_byte_and_agrees_with_the_geometry(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= VPC_MAX_SIZE; size += size / 3 + 511) {
        struct vpc_geometry geometry;
        uint64_t got;
        assert_int_equal(vpc_plan_size(size, false, &geometry, &got, NULL), 0);
        assert_true(got >= size);
        assert_true(got == product(&geometry) * 512 ||
                    (product(&geometry) == 65535u * 16 * 255 && got == imgtk_round_up(size, 512)));
        assert_int_equal(vpc_plan_size(size, true, &geometry, &got, NULL), 0);
        assert_int_equal(got, imgtk_round_up(size, 512));
    }
}

static void disks_beyond_2040_gib_are_refused(void **state)
{
    (void)state;
    struct vpc_geometry geometry;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t size;
    assert_int_equal(vpc_plan_size(2040 * GIB, false, &geometry, &size, &err), 0);
    assert_int_equal(size, 2040 * GIB);
    assert_int_equal(vpc_plan_size(2040 * GIB + 1, true, &geometry, &size, &err), IMGTK_ELIMIT);
    assert_int_equal(vpc_plan_size(UINT64_MAX, true, &geometry, &size, &err), IMGTK_ELIMIT);
}

static void the_creator_decides_which_size_counts(void **state)
{
    (void)state;
    static const struct {
        const char *creator;
        bool bytes;
    } cases[] = { { "win ", true }, { "d2v ", true }, { "tap\0", true }, { "CTXS", true }, { "qem2", true },
                  { "wa\0\0", true }, { "vpc ", false }, { "qemu", false }, { "vbox", false }, { "tapx", false } };
    struct vpc_footer footer = sample;
    uint64_t by_geometry = 1000 * 16 * 63 * 512;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(footer.creator, cases[i].creator, 4);
        assert_int_equal(vpc_footer_size(&footer, VPC_SIZE_BY_CREATOR), cases[i].bytes ? 7 * GIB : by_geometry);
        assert_int_equal(vpc_footer_size(&footer, VPC_SIZE_CURRENT), 7 * GIB);
        assert_int_equal(vpc_footer_size(&footer, VPC_SIZE_CHS), by_geometry);
    }
    footer.geometry = (struct vpc_geometry){ 65535, 16, 255 };
    assert_int_equal(vpc_footer_size(&footer, VPC_SIZE_BY_CREATOR), 7 * GIB);
}

/* ---- Bitmaps and text -------------------------------------------------------- */

static void runs_of_sectors_are_found(void **state)
{
    (void)state;
    static const uint8_t bitmap[] = { 0xc0, 0x00, 0x01, 0xff, 0xff, 0xfe };
    static const uint32_t runs[] = { 2, 21, 24, 1 }; /* the highest bit comes first; set, unset, set, unset */
    uint32_t at = 0, length;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(vpc_bitmap_run(bitmap, at, 48, &length), i % 2 == 0);
        assert_int_equal(length, runs[i]);
        at += length;
    }
    assert_int_equal(at, 48);
    assert_true(vpc_bitmap_run(bitmap, 25, 30, &length));
    assert_int_equal(length, 5);
}

static void assert_text(const char *utf16, size_t size, bool big_endian, const char *expected)
{
    char *text = vpc_utf16_to_utf8((const uint8_t *)utf16, size, big_endian);
    if (expected)
        assert_string_equal(text, expected);
    else
        assert_null(text);
    free(text);
}

static void utf16_becomes_utf8(void **state)
{
    (void)state;
    assert_text("a\0b\0", 4, false, "ab");
    assert_text("\0a\0b\0\0\0c", 8, true, "ab");
    assert_text("a\0b", 3, false, "a");
    assert_text("", 0, false, "");
    assert_text("\xe9\0\xac\x20\x3d\xd8\x00\xde", 8, false, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_text("\x3d\xd8", 2, false, NULL);
    assert_text("\x3d\xd8\x61\0", 4, false, NULL);
    assert_text("\x00\xde\x61\0", 4, false, NULL);
}

static void uuids_are_text_and_back(void **state)
{
    (void)state;
    char text[UUID_TEXT_SIZE];
    uint8_t uuid[UUID_SIZE];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uuid_to_text(sample.uuid, text);
    assert_string_equal(text, "01020304-0506-0708-090a-0b0c0d0e0f10");
    assert_int_equal(uuid_from_text("01020304-0506-0708-090A-0B0C0D0E0F10", uuid, &err), 0);
    assert_memory_equal(uuid, sample.uuid, UUID_SIZE);
    static const char *const bad[] = { "", "01020304-0506-0708-090a-0b0c0d0e0f1",
                                       "01020304-0506-0708-090a-0b0c0d0e0f100",
                                       "0102030405060708-090a-0b0c-0d0e0f10", "01020304-0506-0708-090a-0b0c0d0e0fxy",
                                       "{01020304-0506-0708-090a-0b0c0d0e0f}" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(uuid_from_text(bad[i], uuid, &err), IMGTK_EINVAL);
    assert_int_equal(uuid_random(uuid, &err), 0);
    uuid_to_text(uuid, text);
    assert_int_equal(text[14], '4');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_footer_survives_the_round_trip),
        cmocka_unit_test(every_byte_of_a_footer_is_covered_by_its_checksum),
        cmocka_unit_test(footers_of_other_versions_and_types_are_refused),
        cmocka_unit_test(a_header_survives_the_round_trip),
        cmocka_unit_test(every_byte_of_a_header_is_covered_by_its_checksum),
        cmocka_unit_test(block_sizes_are_powers_of_two_of_a_sector_at_least),
        cmocka_unit_test(locators_are_read),
        cmocka_unit_test(new_disks_have_the_geometry_that_qemu_gives_them),
        cmocka_unit_test(rounding_never_loses_a_byte_and_agrees_with_the_geometry),
        cmocka_unit_test(disks_beyond_2040_gib_are_refused),
        cmocka_unit_test(the_creator_decides_which_size_counts),
        cmocka_unit_test(runs_of_sectors_are_found),
        cmocka_unit_test(utf16_becomes_utf8),
        cmocka_unit_test(uuids_are_text_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
