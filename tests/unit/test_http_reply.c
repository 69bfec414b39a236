#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <string.h>

#include "../../storage/http/http.h"

static struct http_reply reply_of(const char *const *lines)
{
    struct http_reply reply = { 0 };
    for (; *lines; lines++)
        http_reply_add(&reply, *lines, strlen(*lines));
    return reply;
}

static void headers_are_read(void **state)
{
    (void)state;
    static const char *const lines[] = { "HTTP/1.1 206 Partial Content\r\n", "content-range:  bytes 10-19/100 \r\n",
                                         "ETag: \"a b\"\r\n", "LAST-MODIFIED: Mon, 01 Jan 2024 00:00:00 GMT\r\n",
                                         "Content-Length:10\r\n", "X-ETag: \"no\"\r\n", "\r\n", NULL };
    struct http_reply reply = reply_of(lines);
    assert_int_equal(reply.code, 206);
    assert_true(reply.has_range && reply.has_total && reply.has_length && !reply.is_encoded);
    assert_int_equal(reply.first, 10);
    assert_int_equal(reply.last, 19);
    assert_int_equal(reply.total, 100);
    assert_int_equal(reply.length, 10);
    assert_string_equal(reply.etag, "\"a b\"");
    assert_string_equal(reply.modified, "Mon, 01 Jan 2024 00:00:00 GMT");
}

static void a_status_line_begins_anew(void **state)
{
    (void)state;
    static const char *const lines[] = { "HTTP/1.1 302 Found\r\n", "ETag: \"old\"\r\n", "Content-Length: 5\r\n", "\r\n",
                                         "HTTP/2 200\r\n", NULL };
    struct http_reply reply = reply_of(lines);
    assert_int_equal(reply.code, 200);
    assert_string_equal(reply.etag, "");
    assert_false(reply.has_length);
    assert_int_equal(reply.received, 20 + 13 + 19 + 2 + 12);
}

static void ranges_are_strict(void **state)
{
    (void)state;
    static const struct { const char *value; bool range, total; } cases[] = {
        { "bytes 0-0/1", true, true },
        { "bytes 0-9/*", true, false },
        { "bytes */100", false, true },
        { "bytes 0-9223372036854775806/9223372036854775807", false, false }, /* larger than a disk can be */
        { "bytes 5-4/100", false, true },
        { "bytes 0-99999999999999999999/100", false, false },
        { "bytes -1-9/100", false, false },
        { "bytes 0-9/100 and more", false, false },
        { "bytes 0-9", false, false },
        { "bytes", false, false },
        { "items 0-9/100", false, false },
        { "", false, false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "Content-Range: %s\r\n", cases[i].value);
        struct http_reply reply = { 0 };
        http_reply_add(&reply, line, strlen(line));
        if (reply.has_range != cases[i].range || reply.has_total != cases[i].total)
            fail_msg("'%s': range %d, total %d", cases[i].value, reply.has_range, reply.has_total);
    }
}

static void odd_lines_are_passed_over(void **state)
{
    (void)state;
    char longest[HTTP_MAX_TAG + 32] = "ETag: ";
    memset(longest + 6, 'x', HTTP_MAX_TAG);
    const char *const lines[] = { "HTTP/1.1 abc\r\n",    "HTTP/1.1\r\n", "HTTP/", "Content-Length: 12x\r\n",
                                  "Content-Length:", "Content-Encoding: identity\r\n", ":\r\n", "", longest, NULL };
    struct http_reply reply = reply_of(lines);
    assert_int_equal(reply.code, 0);
    assert_false(reply.has_length || reply.is_encoded || reply.has_range);
    assert_string_equal(reply.etag, "");
    http_reply_add(&reply, "Content-Encoding: gzip\r\n", 24);
    assert_true(reply.is_encoded);
}

static void content_is_the_same_as_far_as_is_told(void **state)
{
    (void)state;
    struct http_reply one = { .code = 206, .has_total = true, .total = 10, .etag = "\"a\"" };
    struct http_reply two = one;
    assert_true(http_reply_same_content(&one, &two));
    two.etag[0] = '\0';
    assert_true(http_reply_same_content(&one, &two));
    strcpy(two.modified, "today");
    assert_true(http_reply_same_content(&one, &two));
    strcpy(one.modified, "yesterday");
    assert_false(http_reply_same_content(&one, &two));
    two = one;
    two.total = 9;
    assert_false(http_reply_same_content(&one, &two));
    two = one;
    strcpy(two.etag, "\"b\"");
    assert_false(http_reply_same_content(&one, &two));
}

/* ---- Addresses ------------------------------------------------------------------ */

static void credentials_are_taken_out(void **state)
{
    (void)state;
    struct http_address address = { 0 };
    assert_int_equal(http_address_parse(&address, "https://al%69ce:p%40ss@host:8443/a%20b?key=1#part", NULL), 0);
    assert_string_equal(address.url, "https://host:8443/a%20b?key=1");
    assert_string_equal(address.user, "alice");
    assert_string_equal(address.password, "p@ss");
    http_address_free(&address);
    assert_int_equal(http_address_parse(&address, "http://host", NULL), 0);
    assert_string_equal(address.url, "http://host/");
    assert_null(address.user);
    http_address_free(&address);
}

static void what_is_no_url_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = { "http://", "http://host:port/", "http://[::1/x", "http:" };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_address address = { 0 };
        assert_int_equal(http_address_parse(&address, cases[i], NULL), IMGTK_EINVAL);
        http_address_free(&address);
    }
}

static void another_server_is_told_apart(void **state)
{
    (void)state;
    static const struct { const char *place; bool foreign; } cases[] = {
        { "https://host/elsewhere", false }, { "https://host:443/x", false }, { "http://host/x", true },
        { "https://host:444/x", true }, { "https://host.example/x", true }, { "https://evil@host/x", false },
        { "https://host@evil/x", true }, { "not a url", true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_address address = { 0 };
        assert_int_equal(http_address_parse(&address, "https://host/disk", NULL), 0);
        assert_int_equal(http_address_settle(&address, cases[i].place, NULL), 0);
        if (address.place_is_foreign != cases[i].foreign)
            fail_msg("%s", cases[i].place);
        http_address_free(&address);
    }
}

static void where_nothing_redirects_there_is_no_other_place(void **state)
{
    (void)state;
    struct http_address address = { 0 };
    assert_int_equal(http_address_parse(&address, "https://host/disk", NULL), 0);
    assert_int_equal(http_address_settle(&address, "https://host/disk", NULL), 0);
    assert_null(address.place);
    http_address_free(&address);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_read),
        cmocka_unit_test(a_status_line_begins_anew),
        cmocka_unit_test(ranges_are_strict),
        cmocka_unit_test(odd_lines_are_passed_over),
        cmocka_unit_test(content_is_the_same_as_far_as_is_told),
        cmocka_unit_test(credentials_are_taken_out),
        cmocka_unit_test(what_is_no_url_is_refused),
        cmocka_unit_test(another_server_is_told_apart),
        cmocka_unit_test(where_nothing_redirects_there_is_no_other_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
