#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/convert.h"

#define THREADS 4
#define ITEMS 4000u

struct crowd {
    struct slots slots;
    atomic_uint next_item, fillers, writers, most_fillers, most_writers, written;
    atomic_bool skipped; /* an item's writing began while two or more before it were not written */
    bool early;            /* something was written before the first piece was ready */
    uint64_t order[ITEMS]; /* in which items were written */
    uint64_t fail_at;      /* the item whose writer fails; ITEMS: none */
    bool meet;             /* the first writer waits for a second one */
    bool prepares;         /* the first piece is ready when pieces for all the other slots are */
    atomic_uint preparers, most_preparers, prepared;
};

static unsigned discarded;

static void discard(void *writer, void *prepared)
{
    (void)writer, (void)prepared;
    discarded++;
}

static const struct imgtk_driver compressing = { .discard = discard };

static void enter(atomic_uint *inside, atomic_uint *most)
{
    unsigned now = atomic_fetch_add(inside, 1) + 1, seen = atomic_load(most);
    while (now > seen && !atomic_compare_exchange_weak(most, &seen, now))
        ;
}

/* A while, then the test fails. */
static void wait_for(atomic_uint *count, unsigned least)
{
    for (int i = 0; i < 1000 && atomic_load(count) < least; i++)
        usleep(10000);
}

static void prepare(struct crowd *crowd, struct slot *slot)
{
    slots_read(&crowd->slots, slot);
    enter(&crowd->preparers, &crowd->most_preparers);
    if (slot->item.number == 0) {
        wait_for(&crowd->prepared, crowd->slots.count - 1);
        crowd->early = atomic_load(&crowd->most_writers) > 0;
    }
    slot->runs[0] = (struct run){ .length = 1, .prepared = crowd };
    slot->run_count = 1;
    atomic_fetch_add(&crowd->prepared, 1);
    atomic_fetch_sub(&crowd->preparers, 1);
}

static void fill(struct crowd *crowd, struct slot *slot)
{
    enter(&crowd->fillers, &crowd->most_fillers);
    unsigned number = atomic_fetch_add(&crowd->next_item, 1);
    slot->item = (struct item){ .number = number, .length = 1 };
    slot->buffer[0] = (uint8_t)number;
    atomic_fetch_sub(&crowd->fillers, 1);
    if (number < ITEMS && crowd->prepares)
        prepare(crowd, slot);
    if (number < ITEMS)
        slots_filled(&crowd->slots, slot);
    else
        slots_drained(&crowd->slots, slot);
}

static void write_out(struct crowd *crowd, struct slot *slot)
{
    enter(&crowd->writers, &crowd->most_writers);
    if (atomic_load(&crowd->written) + 1 < slot->item.number)
        crowd->skipped = true;
    if (crowd->meet && slot->item.number == 0)
        wait_for(&crowd->most_writers, 2);
    if (slot->buffer[0] == (uint8_t)slot->item.number)
        crowd->order[atomic_fetch_add(&crowd->written, 1)] = slot->item.number;
    slot->runs[0].prepared = NULL;
    atomic_fetch_sub(&crowd->writers, 1);
    if (slot->item.number == crowd->fail_at && crowd->prepares)
        wait_for(&crowd->prepared, (unsigned)slot->item.number + crowd->slots.count);
    if (slot->item.number == crowd->fail_at)
        slots_fail(&crowd->slots);
    slots_written(&crowd->slots, slot);
}

static void *work(void *context)
{
    struct crowd *crowd = context;
    struct slot *slot;
    for (enum slot_task task; (task = slots_take(&crowd->slots, &slot)) != SLOT_LEAVE;) {
        if (task == SLOT_FILL)
            fill(crowd, slot);
        else
            write_out(crowd, slot);
    }
    return NULL;
}

/* Ends when every thread has left. */
static void run_threads(struct crowd *crowd, const struct target *target, bool in_order)
{
    static struct conversion conversion;
    pthread_t threads[THREADS];
    conversion = (struct conversion){ .workers = THREADS, .item_size = 4096, .granule = 4096, .in_order = in_order,
                                      .target = *target };
    assert_int_equal(slots_init(&crowd->slots, &conversion, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, crowd), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    slots_destroy(&crowd->slots);
}

static void run_crowd(struct crowd *crowd, unsigned writers, bool in_order, uint64_t fail_at)
{
    const struct target target = { .one_writer = writers < THREADS, .writers = writers };
    *crowd = (struct crowd){ .fail_at = fail_at, .meet = writers > 1 };
    run_threads(crowd, &target, in_order);
}

static void run_preparing(struct crowd *crowd, unsigned writers, bool in_order, uint64_t fail_at)
{
    const struct target target = { .driver = &compressing, .prepares = true, .writers = writers };
    *crowd = (struct crowd){ .fail_at = fail_at, .prepares = true };
    discarded = 0;
    run_threads(crowd, &target, in_order);
}

static void one_writer_writes_in_order(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, 1, false, ITEMS);
    assert_int_equal(crowd.most_writers, 1);
    assert_int_equal(crowd.written, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++)
        assert_int_equal(crowd.order[i], i);
}

static void check_nothing_left_out(const struct crowd *crowd)
{
    static bool seen[ITEMS];
    memset(seen, 0, sizeof(seen));
    assert_int_equal(crowd->written, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++) {
        assert_false(seen[crowd->order[i]]);
        seen[crowd->order[i]] = true;
    }
}

static void two_writers_begin_in_order(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, 2, false, ITEMS);
    assert_int_equal(crowd.most_writers, 2);
    assert_false(crowd.skipped);
    check_nothing_left_out(&crowd);
}

static void several_writers_leave_nothing_out(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, THREADS, false, ITEMS);
    check_nothing_left_out(&crowd);
}

static void what_is_read_as_it_comes_has_one_reader(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, THREADS, true, ITEMS);
    assert_int_equal(crowd.most_fillers, 1);
    assert_int_equal(crowd.written, ITEMS);
}

static void all_leave_when_one_fails(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_crowd(&crowd, 1, false, ITEMS / 2);
    assert_int_equal(crowd.written, ITEMS / 2 + 1);
}

static void nobody_waits_for_a_slow_piece(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_preparing(&crowd, THREADS, false, ITEMS);
    assert_int_equal(crowd.prepared, ITEMS);
    assert_int_equal(discarded, 0);
    assert_false(crowd.early);
    check_nothing_left_out(&crowd);
}

static void what_is_read_as_it_comes_is_prepared_by_all(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_preparing(&crowd, THREADS, true, ITEMS);
    assert_int_equal(crowd.most_fillers, 1);
    assert_in_range(crowd.most_preparers, 2, THREADS);
    check_nothing_left_out(&crowd);
}

/* The writer fails when all the other slots are ready. */
static void what_is_prepared_in_vain_is_discarded(void **state)
{
    (void)state;
    static struct crowd crowd;
    run_preparing(&crowd, 1, false, ITEMS / 2);
    assert_int_equal(crowd.written, ITEMS / 2 + 1);
    assert_int_equal(discarded, crowd.slots.count - 1);
    assert_int_equal(crowd.prepared, crowd.written + discarded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_writer_writes_in_order),
        cmocka_unit_test(two_writers_begin_in_order),
        cmocka_unit_test(several_writers_leave_nothing_out),
        cmocka_unit_test(what_is_read_as_it_comes_has_one_reader),
        cmocka_unit_test(all_leave_when_one_fails),
        cmocka_unit_test(nobody_waits_for_a_slow_piece),
        cmocka_unit_test(what_is_read_as_it_comes_is_prepared_by_all),
        cmocka_unit_test(what_is_prepared_in_vain_is_discarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
