/* Where changes in place find free clusters, in an image whose free clusters lie one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "../../formats/qcow2/edit.h"

enum { CLUSTERS = 1 << 20, BITS = 9 };

struct fixture {
    struct qcow2 image;
    struct qcow2_edit edit;
};

/* Every other cluster is used. */
static struct fixture *fragmented(void)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    fixture->image.geometry = qcow2_geometry(BITS, false, 4);
    fixture->edit.image = &fixture->image;
    struct qcow2_tally *tally = &fixture->edit.check.tally;
    assert_int_equal(qcow2_tally_open(tally, CLUSTERS, NULL), 0);
    for (uint64_t i = 0; i < CLUSTERS; i += 2)
        assert_int_equal(qcow2_tally_add(tally, i, 1, QCOW2_USE_DATA, NULL), 0);
    assert_int_equal(qcow2_edit_clusters_open(&fixture->edit, NULL), 0);
    return fixture;
}

static void dispose(struct fixture *fixture)
{
    qcow2_tally_close(&fixture->edit.check.tally);
    free(fixture->edit.freed);
    free(fixture->edit.blocks);
    free(fixture);
}

static uint64_t allocate(struct fixture *fixture, uint64_t count)
{
    uint64_t offset;
    assert_int_equal(qcow2_edit_allocate(&fixture->edit, count, QCOW2_USE_DATA, &offset, NULL), 0);
    return offset >> BITS;
}

/* As when a disk grows that gets its clusters at once. A search through the file for each run would take minutes. */
static void many_runs_are_found_at_one_go(void **unused)
{
    struct fixture *fixture = fragmented();
    (void)unused;
    for (uint64_t i = 0; i < 50000; i++) {
        assert_int_equal(allocate(fixture, 64), CLUSTERS - 1 + 64 * i);
        assert_int_equal(allocate(fixture, 1), 1 + 2 * i);
    }
    dispose(fixture);
}

static void short_runs_get_what_long_ones_have_passed(void **unused)
{
    struct fixture *fixture = fragmented();
    (void)unused;
    for (uint64_t cluster = 10; cluster <= 30; cluster += 10) /* clusters 9 to 11, 19 to 21 and 29 to 31 become free */
        qcow2_tally_subtract(&fixture->edit.check.tally, cluster);
    assert_int_equal(allocate(fixture, 4), CLUSTERS - 1);
    assert_int_equal(allocate(fixture, 2), 9);
    assert_int_equal(allocate(fixture, 3), 19);
    assert_int_equal(allocate(fixture, 1), 1);
    assert_int_equal(allocate(fixture, 2), 29);
    assert_int_equal(allocate(fixture, 2), CLUSTERS + 3);
    assert_int_equal(allocate(fixture, 1), 3);
    dispose(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_runs_are_found_at_one_go),
        cmocka_unit_test(short_runs_get_what_long_ones_have_passed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
