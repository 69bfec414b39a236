#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>

#include <cmocka.h>

#include "convert/turn.h"

#define THREADS 4
#define ITEMS 4000

struct crowd {
    struct turnstile stile;
    atomic_uint next_item;
    unsigned order[ITEMS]; /* in which turns began; guarded by the turns themselves */
    unsigned began;
    unsigned skip_every;   /* items that never take their turn; 0: none */
};

static void *take_turns(void *context)
{
    struct crowd *crowd = context;
    for (unsigned item; (item = atomic_fetch_add(&crowd->next_item, 1)) < ITEMS;) {
        struct imgtk_turn turn = { .stile = &crowd->stile, .item = item, .last = true };
        struct imgtk_error err = IMGTK_ERROR_INIT;
        if (crowd->skip_every == 0 || item % crowd->skip_every != 0) {
            if (imgtk_turn_begin(&turn, &err))
                return context;
            crowd->order[crowd->began++] = item;
            imgtk_turn_end(&turn);
        }
        turn_settle(&turn);
    }
    return NULL;
}

static void run_crowd(struct crowd *crowd, unsigned skip_every)
{
    pthread_t threads[THREADS];
    crowd->skip_every = skip_every;
    turnstile_init(&crowd->stile);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, crowd), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    turnstile_destroy(&crowd->stile);
}

static void turns_come_in_order(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, 0);
    assert_int_equal(crowd.began, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++)
        assert_int_equal(crowd.order[i], i);
}

static void items_without_a_turn_hold_nobody_up(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, 3);
    for (unsigned i = 1; i < crowd.began; i++)
        assert_true(crowd.order[i] > crowd.order[i - 1]);
    assert_int_equal(crowd.began, ITEMS - (ITEMS + 2) / 3);
}

/* An item with several writes keeps its turn until the last one. */
static void only_the_last_write_ends_the_turn(void **state)
{
    (void)state;
    struct turnstile stile;
    turnstile_init(&stile);
    struct imgtk_turn turn = { .stile = &stile, .item = 0 };
    for (int write = 0; write < 3; write++) {
        turn.last = write == 2;
        assert_int_equal(imgtk_turn_begin(&turn, NULL), 0);
        imgtk_turn_end(&turn);
        assert_int_equal(stile.next, write == 2 ? 1 : 0);
    }
    turn_settle(&turn);
    assert_int_equal(stile.next, 1);
    turnstile_destroy(&stile);
}

static void failure_wakes_those_who_wait(void **state)
{
    (void)state;
    struct turnstile stile;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    turnstile_init(&stile);
    turnstile_fail(&stile);
    struct imgtk_turn turn = { .stile = &stile, .item = 7, .last = true };
    assert_int_equal(imgtk_turn_begin(&turn, &err), IMGTK_ECANCELLED);
    turn.item = 5 * TURN_WINDOW;
    turn_settle(&turn); /* would block for ever otherwise */
    turnstile_destroy(&stile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_come_in_order),
        cmocka_unit_test(items_without_a_turn_hold_nobody_up),
        cmocka_unit_test(only_the_last_write_ends_the_turn),
        cmocka_unit_test(failure_wakes_those_who_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
