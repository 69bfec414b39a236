#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "zero.h"

#define MOST 700

/* Every length and every misalignment, with the one byte that is not zero at every place. */
static void finds_a_single_byte_anywhere(void **state)
{
    (void)state;
    uint8_t *buf = calloc(1, MOST + 64);
    assert_non_null(buf);
    for (size_t shift = 0; shift < 33; shift += 3) {
        for (size_t length = 0; length < MOST; length += 1 + length / 40) {
            assert_true(bytes_are_zero(buf + shift, length));
            assert_true(bytes_are_zero_portable(buf + shift, length));
            for (size_t at = 0; at < length; at++) {
                buf[shift + at] = 0x80;
                assert_false(bytes_are_zero(buf + shift, length));
                assert_false(bytes_are_zero_portable(buf + shift, length));
                buf[shift + at] = 0;
            }
        }
    }
    free(buf);
}

static void does_not_look_outside(void **state)
{
    (void)state;
    uint8_t buf[512];
    memset(buf, 0xff, sizeof(buf));
    memset(buf + 100, 0, 300);
    for (size_t length = 0; length <= 300; length++) {
        assert_true(bytes_are_zero(buf + 100, length));
        assert_true(bytes_are_zero(buf + 400 - length, length));
    }
    assert_false(bytes_are_zero(buf + 99, 301));
    assert_false(bytes_are_zero(buf + 100, 301));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_a_single_byte_anywhere),
        cmocka_unit_test(does_not_look_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
