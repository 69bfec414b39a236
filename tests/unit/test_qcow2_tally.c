/* How often clusters are referenced: counts of every width, uses, and several threads that count at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "../../formats/qcow2/check.h"

enum { CLUSTERS = 3 * QCOW2_TALLY_PAGE, PLACE = QCOW2_TALLY_PAGE + 7 };

static void add(struct qcow2_tally *tally, uint64_t first, uint64_t count, enum qcow2_use use)
{
    assert_int_equal(qcow2_tally_add(tally, first, count, use, NULL), 0);
}

static void assert_cluster(const struct qcow2_tally *tally, uint64_t cluster, uint64_t count, enum qcow2_use use)
{
    assert_int_equal(qcow2_tally_count(tally, cluster), count);
    assert_int_equal(qcow2_tally_use(tally, cluster), use);
}

static void counts_of_every_width(void **unused)
{
    static const uint64_t steps[] = { 1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 100000 };
    struct qcow2_tally tally;
    (void)unused;
    assert_int_equal(qcow2_tally_open(&tally, CLUSTERS, NULL), 0);
    add(&tally, PLACE - 1, 1, QCOW2_USE_ALONE);
    add(&tally, PLACE + 1, 1, QCOW2_USE_L2);
    uint64_t count = 0;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        for (; count < steps[i]; count++)
            add(&tally, PLACE, 1, QCOW2_USE_DATA);
        assert_cluster(&tally, PLACE, steps[i], QCOW2_USE_DATA);
        assert_cluster(&tally, PLACE - 1, 1, QCOW2_USE_ALONE);
        assert_cluster(&tally, PLACE + 1, 1, QCOW2_USE_L2);
    }
    assert_int_equal(qcow2_tally_count(&tally, PLACE + 2), 0);
    assert_null(tally.pages[0].entries);
    assert_null(tally.pages[2].entries);
    qcow2_tally_close(&tally);
}

static void ranges_across_pages(void **unused)
{
    struct qcow2_tally tally;
    (void)unused;
    assert_int_equal(qcow2_tally_open(&tally, CLUSTERS, NULL), 0);
    add(&tally, 5, 2 * QCOW2_TALLY_PAGE, QCOW2_USE_DATA);
    add(&tally, 6, 1, QCOW2_USE_DATA);
    for (uint64_t i = 0; i < CLUSTERS; i++)
        assert_int_equal(qcow2_tally_count(&tally, i), (i >= 5 && i < 2 * QCOW2_TALLY_PAGE + 5) + (i == 6));
    qcow2_tally_close(&tally);
}

static void uses_that_exclude_each_other(void **unused)
{
    static const enum qcow2_use uses[] = { QCOW2_USE_DATA, QCOW2_USE_L2, QCOW2_USE_ALONE };
    struct qcow2_tally tally;
    (void)unused;
    assert_int_equal(qcow2_tally_open(&tally, CLUSTERS, NULL), 0);
    for (unsigned i = 0; i < 9; i++) {
        enum qcow2_use one = uses[i / 3], two = uses[i % 3];
        add(&tally, i, 1, one);
        add(&tally, i, 1, two);
        assert_cluster(&tally, i, 2, one == two && one != QCOW2_USE_ALONE ? one : QCOW2_USE_CLASH);
    }
    qcow2_tally_close(&tally);
}

static void several_references_at_once(void **unused)
{
    static const uint32_t times[] = { 1, 2, 3, 4, 64, 16384, 1u << 29, UINT32_MAX };
    static const uint32_t most = (1u << 30) - 1;
    struct qcow2_tally tally;
    (void)unused;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        struct qcow2_references what = { QCOW2_USE_DATA, times[i] };
        assert_int_equal(qcow2_tally_open(&tally, CLUSTERS, NULL), 0);
        add(&tally, PLACE, 1, QCOW2_USE_DATA);
        assert_int_equal(qcow2_tally_add_references(&tally, 0, CLUSTERS, what, NULL), 0);
        assert_cluster(&tally, PLACE, times[i] < most ? times[i] + 1 : most, QCOW2_USE_DATA);
        assert_cluster(&tally, PLACE - 1, times[i] < most ? times[i] : most, QCOW2_USE_DATA);
        assert_cluster(&tally, CLUSTERS - 1, times[i] < most ? times[i] : most, QCOW2_USE_DATA);
        qcow2_tally_close(&tally);
    }
}

static void taking_away_and_growing(void **unused)
{
    struct qcow2_tally tally;
    (void)unused;
    assert_int_equal(qcow2_tally_open(&tally, 10, NULL), 0);
    add(&tally, 9, 1, QCOW2_USE_DATA);
    assert_int_equal(qcow2_tally_grow(&tally, CLUSTERS, NULL), 0);
    assert_int_equal(qcow2_tally_grow(&tally, 10, NULL), 0);
    assert_int_equal(tally.clusters, CLUSTERS);
    for (uint64_t i = 10; i < CLUSTERS; i++)
        assert_int_equal(qcow2_tally_count(&tally, i), 0);
    add(&tally, 9, 1, QCOW2_USE_DATA);
    qcow2_tally_subtract(&tally, 9);
    assert_cluster(&tally, 9, 1, QCOW2_USE_DATA);
    qcow2_tally_subtract(&tally, 9);
    qcow2_tally_subtract(&tally, 9); /* of none, none is taken away */
    qcow2_tally_subtract(&tally, CLUSTERS - 1);
    assert_int_equal(qcow2_tally_count(&tally, 9), 0);
    add(&tally, 9, 1, QCOW2_USE_ALONE);
    assert_cluster(&tally, 9, 1, QCOW2_USE_ALONE);
    assert_int_equal(qcow2_tally_grow(&tally, (UINT64_C(1) << 30) + 1, NULL), IMGTK_ELIMIT);
    qcow2_tally_close(&tally);
}

/* ---- Threads ---------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20 };

static void *count_all(void *context)
{
    for (int i = 0; i < ROUNDS; i++) {
        add(context, 0, CLUSTERS, QCOW2_USE_DATA);
        add(context, PLACE, 1, QCOW2_USE_DATA);
    }
    return NULL;
}

static void several_threads(void **unused)
{
    struct qcow2_tally tally;
    pthread_t threads[THREADS];
    (void)unused;
    assert_int_equal(qcow2_tally_open(&tally, CLUSTERS, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_all, &tally), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (uint64_t i = 0; i < CLUSTERS; i++)
        assert_cluster(&tally, i, THREADS * ROUNDS * (i == PLACE ? 2 : 1), QCOW2_USE_DATA);
    qcow2_tally_close(&tally);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_every_width),
        cmocka_unit_test(ranges_across_pages),
        cmocka_unit_test(uses_that_exclude_each_other),
        cmocka_unit_test(several_references_at_once),
        cmocka_unit_test(taking_away_and_growing),
        cmocka_unit_test(several_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
