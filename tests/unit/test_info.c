#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/info.h"

static void assert_json(const struct imgtk_info *info, const char *expected)
{
    char *text = imgtk_info_json(info);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void json_has_qemu_imgs_layout(void **state)
{
    (void)state;
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT);
    assert_true(imgtk_info_empty(info));
    imgtk_info_text(info, "compat", "1.1");
    imgtk_info_begin_list(info, "extents");
    imgtk_info_begin_object(info, NULL);
    imgtk_info_number(info, "size", 10485760);
    imgtk_info_end(info);
    imgtk_info_end(info);
    imgtk_info_signed(info, "offset", -5);
    imgtk_info_bool(info, "corrupt", false);
    assert_false(imgtk_info_empty(info));
    assert_int_equal(imgtk_info_status(info, NULL), 0);
    assert_json(info, "{\n    \"compat\": \"1.1\",\n    \"extents\": [\n        {\n            \"size\": 10485760\n"
                      "        }\n    ],\n    \"offset\": -5,\n    \"corrupt\": false\n}");
    imgtk_info_free(info);
}

static void text_becomes_utf8(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } cases[] = {
        { "plain", "plain" }, { "\"\\\n\x01", "\\\"\\\\\\n\\u0001" }, { "\xc3\xa9", "\\u00E9" },
        { "\xf0\x9f\x92\xbe", "\\uD83D\\uDCBE" }, { "a\xff" "b", "a\\uFFFDb" }, { "\xc3", "\\uFFFD" },
        { "\xe0\x80\x80", "\\uFFFD\\uFFFD\\uFFFD" }, { "\xed\xa0\x80", "\\uFFFD\\uFFFD\\uFFFD" },
        { "\xf4\x90\x80\x80", "\\uFFFD\\uFFFD\\uFFFD\\uFFFD" }, { "\xc0\xaf", "\\uFFFD\\uFFFD" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[128];
        struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_LIST);
        imgtk_info_text(info, NULL, cases[i].in);
        assert_int_equal(imgtk_info_status(info, NULL), 0);
        snprintf(expected, sizeof expected, "[\n    \"%s\"\n]", cases[i].out);
        assert_json(info, expected);
        imgtk_info_free(info);
    }
}

static void deep_nesting_is_an_error(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT);
    for (int i = 0; i < 40; i++)
        imgtk_info_begin_list(info, i == 0 ? "deep" : NULL);
    imgtk_info_number(info, NULL, 1);
    for (int i = 0; i < 40; i++)
        imgtk_info_end(info);
    imgtk_info_number(info, "after", 2);
    assert_int_equal(imgtk_info_status(info, &err), IMGTK_ELIMIT);
    char *text = imgtk_info_json(info);
    assert_non_null(strstr(text, "\n    \"after\": 2\n}"));
    free(text);
    imgtk_info_free(info);
}

struct seen {
    const struct imgtk_info *info;
    unsigned count;
    int64_t last;
};

static int see(void *context, const struct imgtk_info_value *value)
{
    struct seen *seen = context;
    seen->count++;
    if (value->kind == IMGTK_INFO_NUMBER)
        seen->last = value->number;
    if (value->kind == IMGTK_INFO_LIST)
        return imgtk_info_members(seen->info, value->node, see, seen);
    return value->kind == IMGTK_INFO_TEXT ? 7 : 0;
}

static void members_are_visited_in_order(void **state)
{
    (void)state;
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT), *part = imgtk_info_new(IMGTK_INFO_LIST);
    imgtk_info_number(part, NULL, 1);
    imgtk_info_number(part, NULL, UINT64_MAX);
    imgtk_info_bool(info, "first", true);
    imgtk_info_add(info, "part", part);
    imgtk_info_free(part);
    imgtk_info_text(info, "stop", "here");
    imgtk_info_number(info, "never", 3);
    struct seen seen = { info, 0, 0 };
    assert_int_equal(imgtk_info_members(info, NULL, see, &seen), 7);
    assert_int_equal(seen.count, 5);
    assert_true(seen.last == INT64_MAX);
    imgtk_info_free(info);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_qemu_imgs_layout), cmocka_unit_test(text_becomes_utf8),
        cmocka_unit_test(deep_nesting_is_an_error), cmocka_unit_test(members_are_visited_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
