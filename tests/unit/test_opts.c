#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "opts_shared.h"

static const char *const kinds[] = { "zlib", "zstd", NULL };
static const struct imgtk_opt table[] = {
    { "lazy_refcounts", IMGTK_OPT_BOOL, "off", NULL, 0, 0, "postpone" },
    { "refcount_bits", IMGTK_OPT_UINT, "16", NULL, 1, 64, "bits" },
    { "cluster_size", IMGTK_OPT_SIZE, "65536", NULL, 512, 2u << 20, "bytes" },
    { "compression_type", IMGTK_OPT_CHOICE, "zlib", kinds, 0, 0, "codec" },
    { "backing_file", IMGTK_OPT_STRING, NULL, NULL, 0, 0, "name" },
    { NULL, IMGTK_OPT_STRING, NULL, NULL, 0, 0, NULL }
};

static void sizes_are_parsed(void **state)
{
    (void)state;
    static const struct { const char *text; uint64_t value; } good[] = {
        { "0", 0 }, { "512", 512 }, { "512b", 512 }, { "64k", 65536 }, { "64K", 65536 }, { "1.5G", 1610612736 },
        { "1T", (uint64_t)1 << 40 }, { "7E", (uint64_t)7 << 60 }, { "9223372036854775807", INT64_MAX },
        { "0x10000", 65536 }, { "0.5k", 512 }, { "1.0000000000000000000000k", 1024 },
    };
    static const char *const bad[] = { "", "-1", "+1", " 1", "1 ", "k", "1kk", "8E", "9223372036854775808", "1.5",
                                       "1.5b",
                                       "99999999999999999999", "0x", "0x1k", "1e3" };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t value = 1;
        assert_int_equal(imgtk_parse_size(good[i].text, &value, &err), 0);
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t value;
        assert_int_equal(imgtk_parse_size(bad[i], &value, &err), IMGTK_EINVAL);
        assert_non_null(strstr(err.message, bad[i]));
    }
}

static void defaults_apply(void **state)
{
    (void)state;
    struct imgtk_opts *opts = imgtk_opts_new(table);
    assert_false(imgtk_opts_bool(opts, "lazy_refcounts"));
    assert_int_equal(imgtk_opts_number(opts, "cluster_size"), 65536);
    assert_string_equal(imgtk_opts_text(opts, "compression_type"), "zlib");
    assert_null(imgtk_opts_text(opts, "backing_file"));
    assert_false(imgtk_opts_given(opts, "cluster_size"));
    assert_ptr_equal(imgtk_opts_table(opts), table);
    imgtk_opts_free(opts);
}

static void texts_add_up(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = imgtk_opts_new(table);
    assert_int_equal(imgtk_opts_parse(opts, "qcow2", "cluster_size=4k,lazy_refcounts,backing_file=a,,b=c", &err), 0);
    assert_int_equal(imgtk_opts_parse(opts, "qcow2", "cluster_size=8k,", &err), 0);
    assert_int_equal(imgtk_opts_parse(opts, "qcow2", "", &err), 0);
    assert_int_equal(imgtk_opts_number(opts, "cluster_size"), 8192);
    assert_true(imgtk_opts_bool(opts, "lazy_refcounts"));
    assert_string_equal(imgtk_opts_text(opts, "backing_file"), "a,b=c");
    assert_true(imgtk_opts_given(opts, "backing_file"));
    assert_false(imgtk_opts_given(opts, "refcount_bits"));
    imgtk_opts_free(opts);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct { const char *text; int status; const char *message; } cases[] = {
        { "cluster-size=4k", IMGTK_ENOTFOUND, "did you mean 'cluster_size'" },
        { "xyzzy=1", IMGTK_ENOTFOUND, "unknown option 'xyzzy'" },
        { "cluster_size", IMGTK_EINVAL, "needs a value" },
        { "cluster_size=", IMGTK_EINVAL, "Invalid size" },
        { "cluster_size=256", IMGTK_EINVAL, "256, the limits are 512 and 2097152" },
        { "refcount_bits=16k", IMGTK_EINVAL, "expects a number" },
        { "refcount_bits=65", IMGTK_EINVAL, "the limits are 1 and 64" },
        { "lazy_refcounts=maybe", IMGTK_EINVAL, "'on' or 'off'" },
        { "compression_type=lzma", IMGTK_EINVAL, "zlib, zstd" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        struct imgtk_opts *opts = imgtk_opts_new(table);
        assert_int_equal(imgtk_opts_parse(opts, "qcow2", cases[i].text, &err), cases[i].status);
        assert_non_null(strstr(err.message, cases[i].message));
        assert_int_equal(imgtk_opts_number(opts, "cluster_size"), 65536);
        imgtk_opts_free(opts);
    }
}

static void an_empty_table_knows_nothing(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = imgtk_opts_new(NULL);
    assert_int_equal(imgtk_opts_parse(opts, "raw", "", &err), 0);
    assert_int_equal(imgtk_opts_parse(opts, "raw", "a=1", &err), IMGTK_ENOTFOUND);
    assert_null(imgtk_opts_text(opts, "a"));
    imgtk_opts_free(opts);
}

static bool is_foreign(void *context, const char *name)
{
    return strcmp(context, name) == 0;
}

static void another_tables_options_are_passed_over(void **state)
{
    (void)state;
    static const struct imgtk_opt own[] = { { .name = "mine", .type = IMGTK_OPT_STRING }, { .name = NULL } };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = imgtk_opts_new(own);
    char theirs[] = "theirs";
    assert_int_equal(opts_parse_shared(opts, "x", "theirs=1,mine=a,theirs", is_foreign, theirs, &err), 0);
    assert_string_equal(imgtk_opts_text(opts, "mine"), "a");
    assert_int_equal(opts_parse_shared(opts, "x", "their=1", is_foreign, theirs, &err), IMGTK_ENOTFOUND);
    assert_int_equal(imgtk_opts_parse(opts, "x", "theirs=1", &err), IMGTK_ENOTFOUND);
    imgtk_opts_free(opts);
}

static void near_words_are_found(void **state)
{
    (void)state;
    static const char *const words[] = { "convert", "create", "compare", "map", "info", NULL };
    assert_string_equal(imgtk_nearest_word("covnert", words), "convert");
    assert_string_equal(imgtk_nearest_word("creat", words), "create");
    assert_null(imgtk_nearest_word("zzzz", words));
    assert_null(imgtk_nearest_word("", words));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_parsed), cmocka_unit_test(defaults_apply), cmocka_unit_test(texts_add_up),
        cmocka_unit_test(mistakes_are_named), cmocka_unit_test(an_empty_table_knows_nothing),
        cmocka_unit_test(another_tables_options_are_passed_over), cmocka_unit_test(near_words_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
