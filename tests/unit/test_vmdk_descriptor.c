#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../formats/vmdk/vmdk.h"

#define HEAD "# Disk DescriptorFile\nversion=1\nCID=12ab34cd\nparentCID=ffffffff\ncreateType=\"custom\"\n"

static int parse(const char *text, struct vmdk_descriptor *out, struct imgtk_error *err)
{
    return vmdk_descriptor_parse((const uint8_t *)text, strlen(text), out, err);
}

static void assert_fails(const char *text, int status, const char *message)
{
    struct vmdk_descriptor out;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(parse(text, &out, &err), status);
    if (!strstr(err.message, message))
        fail_msg("'%s' is not in '%s'", message, err.message);
    assert_null(out.text);
    assert_null(out.lines);
}

static void test_values_and_extents(void **state)
{
    struct vmdk_descriptor out;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    (void)state;
    assert_int_equal(parse(HEAD "RW 8 FLAT \"a b.vmdk\" 16\nRDONLY 4 ZERO\nrw 2 sparse \"c\"\n", &out, &err), 0);
    assert_int_equal(out.cid, 0x12ab34cd);
    assert_true(out.has_cid);
    assert_int_equal(out.parent_cid, VMDK_CID_NONE);
    assert_string_equal(out.create_type, "custom");
    assert_null(out.parent_name);
    assert_int_equal(out.line_count, 3);
    assert_int_equal(out.lines[0].type, VMDK_TYPE_FLAT);
    assert_string_equal(out.lines[0].name, "a b.vmdk");
    assert_int_equal(out.lines[0].length, 4096);
    assert_int_equal(out.lines[0].offset, 8192);
    assert_int_equal(out.lines[1].type, VMDK_TYPE_ZERO);
    assert_int_equal(out.lines[2].type, VMDK_TYPE_SPARSE);
    vmdk_descriptor_free(&out);
}

static void test_text_ends_at_nul(void **state)
{
    static const char text[] = HEAD "RW 8 ZERO\n\0RW 8 ZERO\n";
    struct vmdk_descriptor out;
    (void)state;
    assert_int_equal(vmdk_descriptor_parse((const uint8_t *)text, sizeof(text), &out, NULL), 0);
    assert_int_equal(out.line_count, 1);
    vmdk_descriptor_free(&out);
}

static void test_parent(void **state)
{
    struct vmdk_descriptor out;
    (void)state;
    assert_int_equal(parse("# Disk DescriptorFile\nCID=1\nparentCID=2\nparentFileNameHint=\"../base.vmdk\"\n", &out,
                           NULL), 0);
    assert_int_equal(out.parent_cid, 2);
    assert_string_equal(out.parent_name, "../base.vmdk");
    vmdk_descriptor_free(&out);
    assert_fails(HEAD "parentFileNameHint=\"x\"\n", IMGTK_ECORRUPT, "says that there is none");
    assert_fails("# Disk DescriptorFile\nparentCID=00000002\n", IMGTK_ECORRUPT, "names no parent");
}

static void test_faults(void **state)
{
    (void)state;
    assert_fails("RW 8 ZERO\n", IMGTK_ECORRUPT, "does not begin");
    assert_fails("", IMGTK_ECORRUPT, "does not begin");
    assert_fails(HEAD "CID=123456789\n", IMGTK_ECORRUPT, "hexadecimal");
    assert_fails(HEAD "CID=\n", IMGTK_ECORRUPT, "hexadecimal");
    assert_fails(HEAD "RW 0 ZERO\n", IMGTK_ECORRUPT, "0 sectors");
    assert_fails(HEAD "RW 18014398509481984 ZERO\n", IMGTK_ELIMIT, "above the limit");
    assert_fails(HEAD "RW 0x8 ZERO\n", IMGTK_ECORRUPT, "not a number");
    assert_fails(HEAD "RW 8 FLAT x 0\n", IMGTK_ECORRUPT, "quotes");
    assert_fails(HEAD "RW 8 FLAT \"x\" -1\n", IMGTK_ECORRUPT, "not a number");
    assert_fails(HEAD "RW 8 VMFSRAW \"x\"\n", IMGTK_EUNSUPPORTED, "VMFSRAW");
    assert_fails(HEAD "NOACCESS 8 ZERO\n", IMGTK_EUNSUPPORTED, "NOACCESS");
}

static void test_recognising(void **state)
{
    static const char *const yes[] = { "# Disk DescriptorFile", "# disk descriptorfile\n" };
    static const char *const maybe[] = { "# x\n\nversion=1\n", "version=3\nCID=1\n" };
    static const char *const no[] = { "", "#", "# Disk Descriptor", "version=", "version=9\n", "# x", "hello" };
    (void)state;
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_int_equal(vmdk_descriptor_probe((const uint8_t *)yes[i], strlen(yes[i])), IMGTK_PROBE_YES);
    for (size_t i = 0; i < sizeof(maybe) / sizeof(maybe[0]); i++)
        assert_int_equal(vmdk_descriptor_probe((const uint8_t *)maybe[i], strlen(maybe[i])), IMGTK_PROBE_MAYBE);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_int_equal(vmdk_descriptor_probe((const uint8_t *)no[i], strlen(no[i])), IMGTK_PROBE_NO);
}

static void test_written_text_reads_back(void **state)
{
    struct vmdk_descriptor_source source = {
        .cid = 0xfeed, .parent_cid = 0xbeef, .create_type = "monolithicSparse", .parent_name = "base.vmdk",
        .adapter = "lsilogic", .hardware_version = "10", .tools_version = "2147483647",
        .size = UINT64_C(10) << 30, .lines = "RW 20971520 SPARSE \"disk.vmdk\"\n" };
    struct vmdk_descriptor out;
    (void)state;
    char *text = vmdk_descriptor_format(&source);
    assert_non_null(text);
    assert_non_null(strstr(text, "ddb.geometry.cylinders = \"1305\"\n"));
    assert_non_null(strstr(text, "ddb.geometry.heads = \"255\"\n"));
    assert_int_equal(parse(text, &out, NULL), 0);
    assert_int_equal(out.cid, 0xfeed);
    assert_int_equal(out.parent_cid, 0xbeef);
    assert_string_equal(out.parent_name, "base.vmdk");
    assert_string_equal(out.create_type, "monolithicSparse");
    assert_int_equal(out.line_count, 1);
    assert_int_equal(out.lines[0].length, source.size);
    vmdk_descriptor_free(&out);
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_and_extents), cmocka_unit_test(test_text_ends_at_nul),
        cmocka_unit_test(test_parent),             cmocka_unit_test(test_faults),
        cmocka_unit_test(test_recognising),        cmocka_unit_test(test_written_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
