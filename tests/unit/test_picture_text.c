#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum how { PLAIN, XML, JSON };

static void assert_text(enum how how, const char *text, size_t limit, const char *expected)
{
    char *out = NULL;
    size_t size;
    FILE *to = open_memstream(&out, &size);
    assert_non_null(to);
    if (how == JSON)
        text_put_json(to, text);
    else
        (how == XML ? text_put_xml : text_put)(to, text, limit);
    fclose(to);
    assert_string_equal(out, expected);
    free(out);
}

static void markup_is_escaped(void **state)
{
    (void)state;
    assert_text(XML, "<a href=\"x\" b='y'>&", 99, "&#60;a href=&#34;x&#34; b=&#39;y&#39;&#62;&#38;");
    assert_text(JSON, "</script>\"\\&", 0, "\"\\u003c/script\\u003e\\u0022\\u005c\\u0026\"");
    assert_text(PLAIN, "<&>", 99, "<&>");
}

static void characters_that_control_are_replaced(void **state)
{
    (void)state;
    assert_text(XML, "a\033[31m\n\x7f\xc2\x85", 99, "a\ufffd[31m\ufffd\ufffd\ufffd");
    assert_text(PLAIN, "\u202egnp.exe\u2066\u200f\ufeff", 99, "\ufffdgnp.exe\ufffd\ufffd\ufffd");
    assert_text(JSON, "\t\u2028\uffff", 0, "\"\ufffd\ufffd\ufffd\"");
}

static void what_is_no_utf8_is_replaced(void **state)
{
    (void)state;
    assert_text(PLAIN, "\u00e4\u20ac\U0001f4be", 99, "\u00e4\u20ac\U0001f4be");
    assert_text(PLAIN, "a\xff\x80z", 99, "a\ufffd\ufffdz");
    assert_text(PLAIN, "\xe2\x82", 99, "\ufffd\ufffd");           /* cut short */
    assert_text(PLAIN, "\xc0\xaf", 99, "\ufffd");                 /* longer than it must be */
    assert_text(PLAIN, "\xed\xa0\x80", 99, "\ufffd");             /* half of a pair */
    assert_text(PLAIN, "\xf4\x90\x80\x80", 99, "\ufffd");         /* beyond the last */
    assert_text(PLAIN, "\xf8\x88\x80\x80\x80", 99, "\ufffd\ufffd\ufffd\ufffd\ufffd");
}

static void what_may_be_printed_passes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool passes;
        ptrdiff_t length;
    } cases[] = {
        { "a", true, 1 },        { "\n", false, 1 },        { "\x7f", false, 1 },         { "\u00e4", true, 2 },
        { "\u20acz", true, 3 },  { "\U0001f4be", true, 4 }, { "\xc2\x9b", false, 2 },     { "\u202e", false, 3 },
        { "\ufffd", true, 3 },   { "\x9b", false, 1 },      { "\xa0", true, 1 },          { "\xff\x9b", true, 1 },
        { "\xe2\x82", true, 1 }, { "\xc0\x9b", false, 2 },  { "\xed\xa0\x80", false, 3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *at = cases[i].text;
        assert_int_equal(text_pass(&at), cases[i].passes);
        assert_int_equal(at - cases[i].text, cases[i].length);
    }
}

static void long_text_ends_in_an_ellipsis(void **state)
{
    (void)state;
    assert_text(PLAIN, "\u00e4bc", 3, "\u00e4bc");
    assert_text(PLAIN, "\u00e4bcd", 3, "\u00e4b\u2026");
    assert_text(XML, "<<<", 2, "&#60;\u2026");
    assert_text(PLAIN, "abc", 0, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markup_is_escaped),
        cmocka_unit_test(characters_that_control_are_replaced),
        cmocka_unit_test(what_is_no_utf8_is_replaced),
        cmocka_unit_test(what_may_be_printed_passes),
        cmocka_unit_test(long_text_ends_in_an_ellipsis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
