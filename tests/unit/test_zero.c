#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgtk/bytes.h"
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
            assert_true(imgtk_is_zero(buf + shift, length));
            assert_true(is_zero_portable(buf + shift, length));
            for (size_t at = 0; at < length; at++) {
                buf[shift + at] = 0x80;
                assert_false(imgtk_is_zero(buf + shift, length));
                assert_false(is_zero_portable(buf + shift, length));
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
        assert_true(imgtk_is_zero(buf + 100, length));
        assert_true(imgtk_is_zero(buf + 400 - length, length));
    }
    assert_false(imgtk_is_zero(buf + 99, 301));
    assert_false(imgtk_is_zero(buf + 100, 301));
}

/* One byte comes and goes, all others stay what they are: not zero. */
static void a_byte_that_changes_hides_no_other(void **state)
{
    (void)state;
    uint8_t *buf = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(buf != MAP_FAILED);
    memset(buf, 0xaa, 4096);
    pid_t child = fork(); /* no thread: what it does is a race */
    while (child == 0) {
        *(volatile uint8_t *)buf = 0;
        *(volatile uint8_t *)buf = 0xaa;
    }
    assert_true(child > 0); /* it will be killed */
    unsigned wrong = 0;
    for (int i = 0; i < 1000000; i++)
        wrong += imgtk_is_zero(buf, 4096) + is_zero_portable(buf, 4096);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(wrong, 0);
    munmap(buf, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_a_single_byte_anywhere),
        cmocka_unit_test(does_not_look_outside),
        cmocka_unit_test(a_byte_that_changes_hides_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
