/* The flag by which a thread or a signal handler asks jobs to stop. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "imgtk/cancel.h"

static struct imgtk_cancel flag;

static void on_signal(int number)
{
    imgtk_cancel_request(&flag, number);
}

static void *wait_for_it(void *unused)
{
    (void)unused;
    while (imgtk_cancel_reason(&flag) == 0)
        continue;
    return NULL;
}

static void a_thread_sees_what_a_handler_asked(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(imgtk_cancel_reason(&flag), 0);
    assert_int_not_equal((intptr_t)signal(SIGUSR1, on_signal), (intptr_t)SIG_ERR);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_it, NULL), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(imgtk_cancel_reason(&flag), SIGUSR1);
}

static void nobody_can_ask(void **state)
{
    (void)state;
    assert_int_equal(imgtk_cancel_reason(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_sees_what_a_handler_asked),
        cmocka_unit_test(nobody_can_ask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
