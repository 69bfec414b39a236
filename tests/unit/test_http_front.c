/* Which reads go through a file in order: the walk of a job with several workers does, tables that lie apart do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../storage/http/http.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* Reads of that length, one step apart; whether the last one was found to be in order. */
static bool read_steps(struct http_fronts *fronts, uint64_t *offset, uint64_t length, uint64_t step, unsigned count)
{
    struct http_front *front = NULL;
    for (unsigned i = 0; i < count; i++, *offset += step)
        front = http_fronts_note(fronts, *offset, length);
    return front != NULL;
}

static void order_must_be_proven(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    uint64_t offset = 100 * MIB + 7;
    assert_false(read_steps(&fronts, &offset, 32 * KIB, 32 * KIB, 16));
    assert_true(read_steps(&fronts, &offset, 32 * KIB, 32 * KIB, 1));
    assert_true(read_steps(&fronts, &offset, 32 * KIB, 32 * KIB, 10000));
}

static void one_large_read_is_no_order(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    assert_null(http_fronts_note(&fronts, 5 * MIB, 512 * KIB));
}

/* Item n of each worker in turn; each item is read in four parts, which are neighbours. */
static void workers_go_side_by_side(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    enum { WORKERS = 9, PARTS = 4, ROUNDS = 20 };
    unsigned in_order = 0;
    const uint64_t part = 150 * KIB, item = PARTS * part;
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned at = 0; at < PARTS; at++)
            for (unsigned worker = 0; worker < WORKERS; worker++)
                in_order += http_fronts_note(&fronts, (round * WORKERS + worker) * item + at * part, part) != NULL;
    assert_true(in_order > (ROUNDS - 1) * PARTS * WORKERS);
}

static void what_lies_apart_is_no_order(void **state)
{
    (void)state;
    static const uint64_t steps[] = { 100 * KIB, MIB, 2 * MIB + 512, 64 * MIB };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct http_fronts fronts = { 0 };
        uint64_t offset = 0;
        for (unsigned n = 0; n < 1000; n++)
            assert_false(read_steps(&fronts, &offset, 32 * KIB, steps[i], 1));
    }
}

static void reading_again_is_no_order(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    for (unsigned n = 0; n < 1000; n++)
        for (uint64_t offset = 0; offset < 4; offset++)
            assert_null(http_fronts_note(&fronts, offset * 64 * KIB, 64 * KIB));
}

static void tables_in_between_do_not_matter(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    uint64_t offset = 0, table = 1000 * MIB, other = 9000 * MIB;
    for (unsigned n = 0; n < 100; n++) {
        bool in_order = read_steps(&fronts, &offset, 64 * KIB, 64 * KIB, 1);
        assert_int_equal(in_order, n >= 8);
        read_steps(&fronts, &table, 4 * KIB, 100 * MIB, 1);
        read_steps(&fronts, &other, 4 * KIB, 100 * MIB, 1);
    }
}

/* Whatever was read in order before: not much more than that is taken to be. */
static void order_that_ends_is_noticed(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    uint64_t offset = 0;
    assert_true(read_steps(&fronts, &offset, 64 * KIB, 64 * KIB, 100000));
    uint64_t before = offset;
    while (read_steps(&fronts, &offset, 4 * KIB, 512 * KIB, 1))
        assert_true(offset < before + 33 * MIB);
}

static void what_is_forgotten_must_be_proven_anew(void **state)
{
    (void)state;
    struct http_fronts fronts = { 0 };
    uint64_t offset = 0;
    assert_true(read_steps(&fronts, &offset, 64 * KIB, 64 * KIB, 100));
    http_fronts_forget(&fronts);
    assert_false(read_steps(&fronts, &offset, 64 * KIB, 64 * KIB, 8));
    assert_true(read_steps(&fronts, &offset, 64 * KIB, 64 * KIB, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_must_be_proven),       cmocka_unit_test(one_large_read_is_no_order),
        cmocka_unit_test(workers_go_side_by_side),    cmocka_unit_test(what_lies_apart_is_no_order),
        cmocka_unit_test(reading_again_is_no_order),  cmocka_unit_test(tables_in_between_do_not_matter),
        cmocka_unit_test(order_that_ends_is_noticed), cmocka_unit_test(what_is_forgotten_must_be_proven_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
