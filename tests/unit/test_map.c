/* Maps of disks that several threads walk: the rows are those of one thread that goes from the beginning to the end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chain/image_internal.h"
#include "context/context.h"
#include "imgtk/jobs.h"

#define KIB UINT64_C(1024)
#define GIB (KIB * KIB * KIB)

/* Data in one piece, told in extents of no more than `step`; in [from, to) a run of data and one of zeroes in turn. */
struct made {
    uint64_t size, step, from, to, run;
    uint64_t damaged; /* the map fails from there on */
    pthread_t first;  /* the thread of the test */
    atomic_uint asked_by_others;
};

static uint64_t made_size(void *handle)
{
    return ((struct made *)handle)->size;
}

static int made_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct made *made = handle;
    (void)length;
    if (!pthread_equal(pthread_self(), made->first))
        atomic_fetch_add(&made->asked_by_others, 1);
    if (offset >= made->damaged)
        return imgtk_fail(err, IMGTK_ECORRUPT, "damaged from %llu on", (unsigned long long)made->damaged);
    bool in_pieces = offset >= made->from && offset < made->to;
    uint64_t unit = in_pieces ? made->run : made->step;
    uint64_t end = (offset / unit + 1) * unit;
    *out = (struct imgtk_extent){ .length = (end < made->size ? end : made->size) - offset };
    out->kind = in_pieces && offset / made->run % 2 ? IMGTK_EXTENT_ZERO : IMGTK_EXTENT_DATA;
    return 0;
}

static const struct imgtk_driver made_driver = {
    .struct_size = sizeof(struct imgtk_driver), .name = "made", .size = made_size, .extent = made_extent };

struct rows {
    struct imgtk_chain_extent *list;
    size_t count, room;
    size_t stop_after; /* 0: never */
};

static int keep_row(void *context, const struct imgtk_chain_extent *row)
{
    struct rows *rows = context;
    if (rows->count == rows->room) {
        rows->room = rows->room ? 2 * rows->room : 64;
        rows->list = realloc(rows->list, rows->room * sizeof(*rows->list));
        assert_non_null(rows->list);
    }
    rows->list[rows->count++] = *row;
    return rows->count == rows->stop_after ? 77 : 0;
}

static int map(struct made *made, unsigned workers, uint64_t start, uint64_t length, struct rows *rows,
               struct imgtk_error *err)
{
    struct imgtk_context context = { .config.workers = workers };
    struct imgtk_image *image = calloc(1, sizeof(*image));
    assert_non_null(image);
    image->context = &context;
    image->count = 1;
    struct imgtk_layer *layer = &image->layers[0].public;
    *layer = (struct imgtk_layer){ .name = "disk", .driver = &made_driver, .handle = made, .size = made->size };
    assert_int_equal(imgtk_storage_from_memory("", 0, &layer->file, NULL), 0);
    made->first = pthread_self();
    const struct imgtk_map job = { .image = image, .start = start, .length = length, .row = keep_row, .context = rows };
    int status = imgtk_map(&job, err);
    imgtk_storage_close(layer->file);
    free(image);
    return status;
}

static void assert_same_rows(struct rows *rows, struct rows *expected)
{
    assert_int_equal(rows->count, expected->count);
    for (size_t i = 0; i < rows->count; i++) {
        assert_int_equal(rows->list[i].start, expected->list[i].start);
        assert_int_equal(rows->list[i].extent.length, expected->list[i].extent.length);
        assert_int_equal(rows->list[i].extent.kind, expected->list[i].extent.kind);
    }
    free(rows->list);
    free(expected->list);
}

/* A run, a list that is full, and a part end at all places. */
static const struct made disks[] = {
    { .size = 100 * GIB, .step = GIB / 2, .damaged = UINT64_MAX },
    { .size = 100 * GIB + 512, .step = GIB, .from = 0, .to = 2 * GIB, .run = 64 * KIB, .damaged = UINT64_MAX },
    { .size = 3 * GIB, .step = 1024 * KIB, .from = GIB, .to = GIB + GIB / 8, .run = 4 * KIB + 512, .damaged = UINT64_MAX },
    { .size = 8 * GIB, .step = GIB / 256, .from = GIB / 2, .to = 8 * GIB, .run = 192 * KIB, .damaged = UINT64_MAX },
};

static void many_threads_tell_the_rows_of_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
        for (unsigned workers = 2; workers <= 5; workers += 3) {
            struct made alone = disks[i], together = disks[i];
            struct rows expected = { 0 }, rows = { 0 };
            assert_int_equal(map(&alone, 1, 0, UINT64_MAX, &expected, NULL), 0);
            assert_int_equal(alone.asked_by_others, 0);
            assert_int_equal(map(&together, workers, 0, UINT64_MAX, &rows, NULL), 0);
            assert_true(together.asked_by_others > 0);
            assert_same_rows(&rows, &expected);
        }
    }
}

static void a_range_ends_where_it_was_asked_to(void **state)
{
    (void)state;
    struct made made = disks[1];
    struct rows expected = { 0 }, rows = { 0 };
    uint64_t start = 12345 * 512, length = 70 * GIB + 512;
    assert_int_equal(map(&made, 1, start, length, &expected, NULL), 0);
    assert_int_equal(map(&made, 2, start, length, &rows, NULL), 0);
    const struct imgtk_chain_extent *last = &rows.list[rows.count - 1];
    assert_int_equal(last->start + last->extent.length, start + length);
    assert_same_rows(&rows, &expected);
}

static void few_small_or_near_extents_need_no_threads(void **state)
{
    (void)state;
    struct made alone[] = {
        { .size = 1024 * 1024 * GIB, .step = 32768 * GIB, .damaged = UINT64_MAX },
        { .size = GIB, .step = 2048 * KIB, .damaged = UINT64_MAX },
        { .size = 4 * GIB, .step = GIB, .from = 0, .to = 4 * GIB, .run = 64 * KIB, .damaged = UINT64_MAX },
    };
    for (size_t i = 0; i < sizeof(alone) / sizeof(alone[0]); i++) {
        struct rows rows = { 0 };
        assert_int_equal(map(&alone[i], 4, 0, UINT64_MAX, &rows, NULL), 0);
        assert_int_equal(alone[i].asked_by_others, 0);
        free(rows.list);
    }
}

static void a_failure_comes_after_the_rows_before_it(void **state)
{
    (void)state;
    for (uint64_t damaged = GIB; damaged < 4 * GIB; damaged += GIB + 192 * KIB) {
        struct made made = disks[3];
        struct rows expected = { 0 }, rows = { 0 };
        struct imgtk_error err = IMGTK_ERROR_INIT;
        made.damaged = damaged;
        assert_int_equal(map(&made, 1, 0, UINT64_MAX, &expected, &err), IMGTK_ECORRUPT);
        assert_int_equal(map(&made, 3, 0, UINT64_MAX, &rows, &err), IMGTK_ECORRUPT);
        assert_non_null(strstr(err.message, "disk: damaged from "));
        assert_same_rows(&rows, &expected);
    }
}

static void a_row_may_stop_it(void **state)
{
    (void)state;
    for (size_t stop_after = 1; stop_after < 40000; stop_after += 7777) {
        struct made made = disks[3];
        struct rows rows = { .stop_after = stop_after };
        assert_int_equal(map(&made, 3, 0, UINT64_MAX, &rows, NULL), 77);
        assert_int_equal(rows.count, stop_after);
        free(rows.list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_tell_the_rows_of_one),
        cmocka_unit_test(a_range_ends_where_it_was_asked_to),
        cmocka_unit_test(few_small_or_near_extents_need_no_threads),
        cmocka_unit_test(a_failure_comes_after_the_rows_before_it),
        cmocka_unit_test(a_row_may_stop_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
