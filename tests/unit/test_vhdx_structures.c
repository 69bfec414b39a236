/* What VHDX's structures are made of, and that what is built is what is parsed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../formats/vhdx/vhdx.h"
#include "imgtk/bytes.h"

static struct vhdx_layout layout_of(uint64_t size, const char *options)
{
    struct vhdx_layout layout;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = imgtk_opts_new(vhdx_create_opts);
    assert_int_equal(imgtk_opts_parse(opts, "vhdx", options, &err), 0);
    assert_int_equal(vhdx_layout_from(size, opts, &layout, &err), 0);
    imgtk_opts_free(opts);
    return layout;
}

static const struct vhdx_identity identity = { { { 1, 2, 3 } }, { { 4, 5, 6 } }, { { 7, 8, 9 } } };

static uint8_t *section_of(const struct vhdx_layout *layout)
{
    uint8_t *section = calloc(1, VHDX_SECTION_SIZE);
    assert_non_null(section);
    vhdx_build_section(section, layout, &identity);
    return section;
}

/* ---- Checksums, GUIDs, text --------------------------------------------- */

static void a_checksum_does_not_count_itself(void **state)
{
    (void)state;
    uint8_t bytes[64] = "head";
    uint32_t checksum = vhdx_checksum(bytes, sizeof(bytes));
    imgtk_put_le32(bytes + 4, 0x12345678);
    assert_int_equal(vhdx_checksum(bytes, sizeof(bytes)), checksum);
    bytes[63] = 1;
    assert_int_not_equal(vhdx_checksum(bytes, sizeof(bytes)), checksum);
}

static void guids_are_read_and_written_in_windows_order(void **state)
{
    (void)state;
    char text[UUID_TEXT_SIZE];
    struct vhdx_guid guid = vhdx_guid_at(VHDX_GUID_BAT);
    vhdx_guid_format(&guid, text);
    assert_string_equal(text, "2dc27766-f623-4200-9d64-115e9bfd4a08");
    assert_int_equal(vhdx_guid_parse("{2DC27766-F623-4200-9D64-115E9BFD4A08}", &guid, NULL), 0);
    assert_true(vhdx_guid_equal(&guid, VHDX_GUID_BAT));
    assert_int_not_equal(vhdx_guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a08", &guid, NULL), 0);
    assert_int_not_equal(vhdx_guid_parse("2dc27766-f623-4200-9d64-115e9bfd4a0g", &guid, NULL), 0);
    assert_int_not_equal(vhdx_guid_parse("", &guid, NULL), 0);
}

static void assert_utf8(const char *utf16, size_t bytes, const char *expected)
{
    char *text = vhdx_utf16_to_utf8((const uint8_t *)utf16, bytes);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void utf16_becomes_utf8(void **state)
{
    (void)state;
    assert_utf8("a\0b\0", 4, "ab");
    assert_utf8("a\0\0\0b\0", 6, "a");
    assert_utf8("\xe9\0\xac\x20", 4, "\xc3\xa9\xe2\x82\xac");
    assert_utf8("\x3d\xd8\x00\xde", 4, "\xf0\x9f\x98\x80");
    assert_utf8("\x3d\xd8", 2, "\xef\xbf\xbd");            /* half of a pair at the end */
    assert_utf8("\x00\xde\x3d\xd8" "a\0", 6, "\xef\xbf\xbd\xef\xbf\xbd" "a"); /* the wrong way round */
    assert_utf8("a\0b", 3, "a");
    assert_utf8("", 0, "");
}

/* ---- What is built is what is parsed -------------------------------------- */

static void headers_survive_the_round_trip(void **state)
{
    (void)state;
    struct vhdx_layout layout = layout_of(100 * VHDX_MIB, "log_size=3M");
    uint8_t *section = section_of(&layout);
    struct vhdx_header_choice choice;
    uint8_t *first = section + VHDX_HEADER_1_OFFSET, *second = section + VHDX_HEADER_2_OFFSET;
    assert_int_equal(vhdx_header_choose(first, second, &choice, NULL), 0);
    assert_int_equal(choice.number, 2);
    assert_int_equal(choice.damaged, 0);
    assert_int_equal(choice.header.sequence, 2);
    assert_int_equal(choice.header.log_offset, VHDX_MIB);
    assert_int_equal(choice.header.log_length, 3 * VHDX_MIB);
    assert_true(vhdx_guid_is_zero(&choice.header.log_guid));
    assert_memory_equal(&choice.header.data_write, &identity.data_write, UUID_SIZE);
    assert_memory_equal(&choice.header.file_write, &identity.file_write, UUID_SIZE);
    free(section);
}

static void every_byte_of_a_header_is_covered(void **state)
{
    (void)state;
    struct vhdx_layout layout = layout_of(100 * VHDX_MIB, "");
    uint8_t *section = section_of(&layout), *bytes = section + VHDX_HEADER_1_OFFSET;
    struct vhdx_header header;
    for (size_t i = 0; i < VHDX_HEADER_SIZE; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(vhdx_header_parse(bytes, &header, NULL), IMGTK_ECORRUPT);
        bytes[i] ^= 0x10;
    }
    assert_int_equal(vhdx_header_parse(bytes, &header, NULL), 0);
    free(section);
}

static void one_bad_header_leaves_the_other(void **state)
{
    (void)state;
    struct vhdx_layout layout = layout_of(100 * VHDX_MIB, "");
    uint8_t *section = section_of(&layout);
    uint8_t *first = section + VHDX_HEADER_1_OFFSET, *second = section + VHDX_HEADER_2_OFFSET;
    struct vhdx_header_choice choice;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    second[100] ^= 1;
    assert_int_equal(vhdx_header_choose(first, second, &choice, &err), 0);
    assert_int_equal(choice.number, 1);
    assert_int_equal(choice.damaged, 2);
    first[100] ^= 1;
    assert_int_equal(vhdx_header_choose(first, second, &choice, &err), IMGTK_ECORRUPT);
    assert_non_null(strstr(err.message, "neither header"));
    free(section);
}

static void region_tables_survive_the_round_trip(void **state)
{
    (void)state;
    struct vhdx_layout layout = layout_of(100 * VHDX_MIB, "");
    uint8_t *section = section_of(&layout);
    struct vhdx_region_limits limits = { layout.data_offset, { layout.log_offset, layout.log_length } };
    struct vhdx_regions regions;
    assert_int_equal(vhdx_regions_parse(section + VHDX_REGION_2_OFFSET, &limits, &regions, NULL), 0);
    assert_int_equal(regions.bat.offset, layout.bat_offset);
    assert_int_equal(regions.bat.length, layout.bat_length);
    assert_int_equal(regions.metadata.offset, layout.metadata_offset);
    limits.file_size = layout.data_offset - 1;
    assert_int_equal(vhdx_regions_parse(section + VHDX_REGION_1_OFFSET, &limits, &regions, NULL), IMGTK_ECORRUPT);
    free(section);
}

static void metadata_survive_the_round_trip(void **state)
{
    (void)state;
    struct vhdx_layout layout = layout_of(100 * VHDX_MIB + 1, "subformat=fixed,block_size=2M");
    uint8_t *bytes = calloc(1, VHDX_BUILD_METADATA_SIZE);
    struct vhdx_items items;
    vhdx_build_metadata(bytes, &layout, &identity);
    assert_int_equal(vhdx_metadata_parse_table(bytes, VHDX_METADATA_LENGTH, &items, NULL), 0);
    assert_int_equal(imgtk_le32(bytes + items.file_parameters.offset), 2 * VHDX_MIB);
    assert_int_equal(imgtk_le32(bytes + items.file_parameters.offset + 4), VHDX_FILE_LEAVE_ALLOCATED);
    assert_int_equal(imgtk_le64(bytes + items.disk_size.offset), 100 * VHDX_MIB + 512);
    assert_memory_equal(bytes + items.disk_id.offset, &identity.disk, UUID_SIZE);
    assert_false(items.parent_locator.present);
    free(bytes);
}

/* ---- Layout ---------------------------------------------------------------- */

static void layouts_have_room_for_every_entry(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        const char *options;
        uint64_t block_size, blocks, entries, bat_length;
    } cases[] = {
        { 0, "", 8 * VHDX_MIB, 0, 0, VHDX_MIB },
        { 1, "", 8 * VHDX_MIB, 1, 1, VHDX_MIB },
        { 2048 * VHDX_MIB, "", 16 * VHDX_MIB, 128, 128, VHDX_MIB },
        { 2 * VHDX_TIB, "", 32 * VHDX_MIB, 65536, 65536 + 511, VHDX_MIB },
        { 64 * VHDX_TIB, "", 64 * VHDX_MIB, 1 << 20, (1 << 20) + 16383, 9 * VHDX_MIB },
        { 64 * VHDX_TIB, "block_size=1M", VHDX_MIB, 1 << 26, (1 << 26) + 16383, 513 * VHDX_MIB },
        { 4096 * VHDX_MIB, "block_size=256M", 256 * VHDX_MIB, 16, 16, VHDX_MIB },
        { 4096 * VHDX_MIB + 512, "block_size=256M", 256 * VHDX_MIB, 17, 18, VHDX_MIB },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vhdx_layout layout = layout_of(cases[i].size, cases[i].options);
        assert_int_equal(layout.block_size, cases[i].block_size);
        assert_int_equal(layout.block_count, cases[i].blocks);
        assert_int_equal(layout.bat_entries, cases[i].entries);
        assert_int_equal(layout.bat_length, cases[i].bat_length);
        assert_int_equal(layout.data_offset, 3 * VHDX_MIB + cases[i].bat_length);
    }
}

static void the_same_seed_gives_the_same_guids(void **state)
{
    (void)state;
    struct vhdx_identity first, second, random[2];
    struct imgtk_opts *opts = imgtk_opts_new(vhdx_create_opts);
    unsetenv("SOURCE_DATE_EPOCH");
    assert_int_equal(vhdx_identity_from(512, opts, &random[0], NULL), 0);
    assert_int_equal(vhdx_identity_from(512, opts, &random[1], NULL), 0);
    assert_memory_not_equal(&random[0], &random[1], sizeof(random[0]));
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    assert_int_equal(vhdx_identity_from(512, opts, &first, NULL), 0);
    assert_int_equal(vhdx_identity_from(512, opts, &second, NULL), 0);
    assert_memory_equal(&first, &second, sizeof(first));
    assert_memory_not_equal(&first.disk, &first.data_write, UUID_SIZE);
    assert_memory_not_equal(&first.file_write, &first.data_write, UUID_SIZE);
    assert_int_equal(vhdx_identity_from(1024, opts, &second, NULL), 0);
    assert_memory_not_equal(&first.disk, &second.disk, UUID_SIZE);
    setenv("SOURCE_DATE_EPOCH", "soon", 1);
    assert_int_equal(vhdx_identity_from(512, opts, &first, NULL), IMGTK_EINVAL);
    unsetenv("SOURCE_DATE_EPOCH");
    imgtk_opts_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checksum_does_not_count_itself),
        cmocka_unit_test(guids_are_read_and_written_in_windows_order),
        cmocka_unit_test(utf16_becomes_utf8),
        cmocka_unit_test(headers_survive_the_round_trip),
        cmocka_unit_test(every_byte_of_a_header_is_covered),
        cmocka_unit_test(one_bad_header_leaves_the_other),
        cmocka_unit_test(region_tables_survive_the_round_trip),
        cmocka_unit_test(metadata_survive_the_round_trip),
        cmocka_unit_test(layouts_have_room_for_every_entry),
        cmocka_unit_test(the_same_seed_gives_the_same_guids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
