#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "../../formats/vdi/vdi.h"

#define MIB (UINT64_C(1) << 20)

static const struct vdi_header sample = {
    .type = VDI_STATIC,
    .table_offset = 512,
    .data_offset = 4096,
    .disk_size = 10 * MIB + 512,
    .block_size = 1 << 20,
    .blocks = 11,
    .blocks_allocated = 5,
    .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
    .uuid_modify = { 0xaa },
};

static void assert_refused(const uint8_t *bytes, int status, const char *words)
{
    struct vdi_header header;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(vdi_header_parse(bytes, &header, &err), status);
    if (!strstr(err.message, words))
        fail_msg("'%s' is not in '%s'", words, err.message);
}

static void a_header_survives_the_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[VDI_HEADER_BYTES];
    struct vdi_header header;
    vdi_header_encode(&sample, bytes);
    assert_memory_equal(bytes, "<<< ", 4);
    assert_int_equal(vdi_header_parse(bytes, &header, NULL), 0);
    assert_int_equal(header.version, 0x00010001);
    assert_int_equal(header.type, VDI_STATIC);
    assert_int_equal(header.table_offset, 512);
    assert_int_equal(header.data_offset, 4096);
    assert_int_equal(header.disk_size, 10 * MIB + 512);
    assert_int_equal(header.block_size, 1 << 20);
    assert_int_equal(header.blocks, 11);
    assert_int_equal(header.blocks_allocated, 5);
    assert_memory_equal(header.uuid, sample.uuid, UUID_SIZE);
    assert_memory_equal(header.uuid_modify, sample.uuid_modify, UUID_SIZE);
    assert_true(uuid_is_null(header.uuid_link));
}

static void uuids_lie_with_little_endian_fields(void **state)
{
    (void)state;
    static const uint8_t expected[] = { 4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16 };
    uint8_t bytes[VDI_HEADER_BYTES];
    vdi_header_encode(&sample, bytes);
    assert_memory_equal(bytes + 0x188, expected, sizeof(expected));
}

static void odd_lengths_are_whole_sectors(void **state)
{
    (void)state;
    uint8_t bytes[VDI_HEADER_BYTES];
    struct vdi_header header;
    vdi_header_encode(&sample, bytes);
    imgtk_put_le64(bytes + VDI_AT_DISK_SIZE, 10 * MIB + 1);
    assert_int_equal(vdi_header_parse(bytes, &header, NULL), 0);
    assert_int_equal(header.disk_size, 10 * MIB + 512);
}

static void version_0_has_its_table_behind_the_header(void **state)
{
    (void)state;
    uint8_t bytes[VDI_HEADER_BYTES] = { 0 };
    struct vdi_header header;
    imgtk_put_le32(bytes + VDI_AT_SIGNATURE, VDI_SIGNATURE);
    imgtk_put_le32(bytes + VDI_AT_VERSION, 1);
    imgtk_put_le32(bytes + 0x48, VDI_DYNAMIC);
    imgtk_put_le64(bytes + 0x160, 3 * MIB);
    imgtk_put_le32(bytes + 0x168, 1 << 20);
    imgtk_put_le32(bytes + 0x16c, 3);
    imgtk_put_le32(bytes + 0x170, 2);
    bytes[0x174] = 0x78;
    assert_int_equal(vdi_header_parse(bytes, &header, NULL), 0);
    assert_int_equal(header.type, VDI_DYNAMIC);
    assert_int_equal(header.disk_size, 3 * MIB);
    assert_int_equal(header.blocks, 3);
    assert_int_equal(header.blocks_allocated, 2);
    assert_int_equal(header.table_offset, 420);
    assert_int_equal(header.data_offset, 432);
    assert_int_equal(header.uuid[3], 0x78);
}

static void what_is_not_supported_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[VDI_HEADER_BYTES];
    vdi_header_encode(&sample, bytes);
    imgtk_put_le32(bytes + VDI_AT_SIGNATURE, 0x12345678);
    assert_refused(bytes, IMGTK_ECORRUPT, "signature");
    vdi_header_encode(&sample, bytes);
    imgtk_put_le32(bytes + VDI_AT_VERSION, 0x00020000);
    assert_refused(bytes, IMGTK_EUNSUPPORTED, "version 2.0");
    static const uint32_t types[] = { 0, VDI_UNDO, 5, UINT32_MAX };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        vdi_header_encode(&sample, bytes);
        imgtk_put_le32(bytes + VDI_AT_TYPE, types[i]);
        assert_refused(bytes, IMGTK_EUNSUPPORTED, "not supported");
    }
    vdi_header_encode(&sample, bytes);
    imgtk_put_le32(bytes + VDI_AT_HEADER_SIZE, 100);
    assert_refused(bytes, IMGTK_ECORRUPT, "header says");
}

static void sizes_are_checked_before_they_are_used(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        int status;
        const char *words;
    } cases[] = {
        { VDI_AT_BLOCK_SIZE, 0, IMGTK_ECORRUPT, "block size" },
        { VDI_AT_BLOCK_SIZE, 256, IMGTK_ECORRUPT, "block size" },
        { VDI_AT_BLOCK_SIZE, 0x180000, IMGTK_ECORRUPT, "block size" },
        { VDI_AT_BLOCK_SIZE, 0x80000000, IMGTK_ECORRUPT, "block size" },
        { VDI_AT_BLOCK_EXTRA, UINT32_MAX, IMGTK_ELIMIT, "extra" },
        { VDI_AT_BLOCKS, UINT32_MAX, IMGTK_ELIMIT, "blocks" },
        { VDI_AT_BLOCKS, 10, IMGTK_ECORRUPT, "hold only" },
        { VDI_AT_DISK_SIZE + 4, UINT32_MAX, IMGTK_ECORRUPT, "hold only" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bytes[VDI_HEADER_BYTES];
        vdi_header_encode(&sample, bytes);
        imgtk_put_le32(bytes + cases[i].at, cases[i].value);
        assert_refused(bytes, cases[i].status, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_survives_the_round_trip),
        cmocka_unit_test(uuids_lie_with_little_endian_fields),
        cmocka_unit_test(odd_lengths_are_whole_sectors),
        cmocka_unit_test(version_0_has_its_table_behind_the_header),
        cmocka_unit_test(what_is_not_supported_is_refused),
        cmocka_unit_test(sizes_are_checked_before_they_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
