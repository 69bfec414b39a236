#include <errno.h>

#include "imgtk/error.h"
#include "scratch.h"

static void sets_status_and_message_together(void **state)
{
    (void)state;
    struct imgtk_error err = { IMGTK_EIO, EIO, "older" };
    assert_int_equal(imgtk_fail(&err, IMGTK_ELIMIT, "%d is above %s", 7, "six"), IMGTK_ELIMIT);
    assert_int_equal(err.status, IMGTK_ELIMIT);
    assert_int_equal(err.os_errno, 0);
    assert_string_equal(err.message, "7 is above six");
}

static void replaces_control_bytes(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    imgtk_fail(&err, IMGTK_ECORRUPT, "name '%s'", "a\nb\033[31m\xc3\xa4");
    assert_string_equal(err.message, "name 'a?b?[31m\xc3\xa4'");
}

static void cuts_long_messages(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    char text[2 * IMGTK_MESSAGE_SIZE];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    imgtk_fail(&err, IMGTK_EINVAL, "%s", text);
    assert_int_equal(strlen(err.message), IMGTK_MESSAGE_SIZE - 1);
    imgtk_fail_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), IMGTK_MESSAGE_SIZE - 1);
    imgtk_fail_errno(&err, ENOENT, "%s", text);
    assert_int_equal(strlen(err.message), IMGTK_MESSAGE_SIZE - 1);
}

static void credentials_are_left_out(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    imgtk_fail(&err, IMGTK_EIO, "'%s' and %s", "http://user:pa@ss@host/x@y", "nbds://TOKEN@other: no answer");
    assert_string_equal(err.message, "'http://host/x@y' and nbds://other: no answer");
    imgtk_fail_prefix(&err, "https://user@host");
    assert_string_equal(err.message, "https://host: 'http://host/x@y' and nbds://other: no answer");
    imgtk_fail(&err, IMGTK_EIO, "mail someone@host, see http://host or %s", "file://");
    assert_string_equal(err.message, "mail someone@host, see http://host or file://");
    char secret[IMGTK_MESSAGE_SIZE];
    memset(secret, 's', sizeof(secret) - 1);
    secret[sizeof(secret) - 1] = '\0';
    imgtk_fail(&err, IMGTK_EIO, "http://%s@host/", secret); /* longer than a message */
    assert_string_equal(err.message, "http://host/");
}

static void errno_decides_the_status(void **state)
{
    (void)state;
    static const struct {
        int os_errno, status;
    } cases[] = {
        { ENOENT, IMGTK_ENOTFOUND }, { ENOSPC, IMGTK_ENOSPACE }, { EDQUOT, IMGTK_ENOSPACE },
        { ENOMEM, IMGTK_ENOMEM },    { EACCES, IMGTK_EIO },      { EIO, IMGTK_EIO },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        assert_int_equal(imgtk_fail_errno(&err, cases[i].os_errno, "x"), cases[i].status);
        assert_int_equal(err.os_errno, cases[i].os_errno);
        assert_int_equal(imgtk_fail_errno(NULL, cases[i].os_errno, "x"), cases[i].status);
    }
    struct imgtk_error err = IMGTK_ERROR_INIT;
    imgtk_fail_errno(&err, ENOENT, "Could not open '%s'", "nx");
    assert_string_equal(err.message, "Could not open 'nx': No such file or directory");
}

static void prefix_keeps_the_status(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    imgtk_fail_errno(&err, ENOSPC, "write");
    assert_int_equal(imgtk_fail_prefix(&err, "%s", "disk.raw"), IMGTK_ENOSPACE);
    assert_int_equal(err.os_errno, ENOSPC);
    assert_string_equal(err.message, "disk.raw: write: No space left on device");
}

static void a_message_may_quote_the_one_it_replaces(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    imgtk_fail(&err, IMGTK_EIO, "inner");
    imgtk_fail(&err, IMGTK_EIO, "outer (%s)", err.message);
    assert_string_equal(err.message, "outer (inner)");
}

static void works_without_an_error_object(void **state)
{
    (void)state;
    assert_int_equal(imgtk_fail(NULL, IMGTK_ECORRUPT, "x"), IMGTK_ECORRUPT);
    assert_true(imgtk_fail_prefix(NULL, "x") < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_status_and_message_together),
        cmocka_unit_test(replaces_control_bytes),
        cmocka_unit_test(cuts_long_messages),
        cmocka_unit_test(credentials_are_left_out),
        cmocka_unit_test(errno_decides_the_status),
        cmocka_unit_test(prefix_keeps_the_status),
        cmocka_unit_test(a_message_may_quote_the_one_it_replaces),
        cmocka_unit_test(works_without_an_error_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
