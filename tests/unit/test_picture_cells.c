#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cells.h"
#include "layout.h"

static struct cells cells;

static void begin(uint64_t start, uint64_t length, size_t limit)
{
    assert_int_equal(cells_init(&cells, start, length, limit, NULL), 0);
}

static int end(void **state)
{
    (void)state;
    cells_free(&cells);
    return 0;
}

static void cells_are_powers_of_two(void **state)
{
    (void)state;
    assert_int_equal(cell_size_for(0, 1), 512);
    assert_int_equal(cell_size_for(512, 1), 512);
    assert_int_equal(cell_size_for(513, 1), 1024);
    assert_int_equal(cell_size_for(8192u * 512, 8192), 512);
    assert_int_equal(cell_size_for(8192u * 512 + 1, 8192), 1024);
    assert_int_equal(cell_size_for(INT64_MAX, 16), UINT64_C(1) << 59);
}

static void an_extent_is_shared_among_its_cells(void **state)
{
    (void)state;
    begin(1000, 2048, 2); /* two cells of 1024 */
    cells_add(&cells, 1000, 24, CELL_DATA, 0);
    cells_add(&cells, 1024, 1500, CELL_COMPRESSED, 1);
    cells_add(&cells, 2524, 524, CELL_HOLE, 1);
    cells_finish(&cells);
    assert_int_equal(cells.count, 2);
    assert_int_equal(cells.cells[0].bytes[CELL_DATA], 24);
    assert_int_equal(cells.cells[0].bytes[CELL_COMPRESSED], 1000);
    assert_int_equal(cells.cells[1].bytes[CELL_COMPRESSED], 500);
    assert_int_equal(cells.cells[1].bytes[CELL_HOLE], 524);
    assert_int_equal(cells.kinds[CELL_COMPRESSED], 1500);
    assert_int_equal(cells_rest(&cells), 0);
}

static void a_cell_tells_the_layer_that_holds_the_most(void **state)
{
    (void)state;
    begin(0, 2048, 2);
    cells_add(&cells, 0, 300, CELL_DATA, 3);
    cells_add(&cells, 300, 300, CELL_ZERO, 1);
    cells_add(&cells, 600, 10, CELL_DATA, 1);
    cells_add(&cells, 610, 414, CELL_HOLE, 9);
    cells_add(&cells, 1024, 5, CELL_DATA, 3);
    cells_finish(&cells);
    assert_int_equal(cells.cells[0].layer, 1);
    assert_int_equal(cells.cells[0].layer_bytes, 310);
    assert_int_equal(cells.cells[1].layer, 3);
    assert_int_equal(cells.cells[1].layer_bytes, 5);
    assert_int_equal(cells.layers[3], 305);
    assert_int_equal(cells.layers[9], 0);
}

static void what_is_not_told_is_left(void **state)
{
    (void)state;
    begin(0, 1536, 2);
    cells_add(&cells, 1024, 100, CELL_HOLE, 0);
    cells_finish(&cells);
    assert_int_equal(cell_length(&cells, 1), 512);
    assert_int_equal(cell_rest(&cells, 0), 1024);
    assert_int_equal(cell_rest(&cells, 1), 412);
    assert_int_equal(cells_rest(&cells), 1436);
}

static void nothing_has_no_cells(void **state)
{
    (void)state;
    begin(0, 0, 100);
    cells_finish(&cells);
    assert_int_equal(cells.count, 0);
    assert_int_equal(layout_rows(&cells, 10), 0);
}

/* ---- Stacks and runs ------------------------------------------------------ */

static void what_is_little_shows_and_nothing_exceeds_the_cell(void **state)
{
    (void)state;
    unsigned heights[SERIES_MAX];
    begin(0, 4096, 1);
    cells_add(&cells, 0, 1, CELL_DATA, 0);
    cells_add(&cells, 1, 1, CELL_COMPRESSED, 0);
    cells_add(&cells, 2, 4094, CELL_ZERO, 0);
    cells_finish(&cells);
    series_kinds.stack(&cells, 0, heights);
    assert_int_equal(heights[CELL_DATA], 1);
    assert_int_equal(heights[CELL_COMPRESSED], 1);
    assert_int_equal(heights[CELL_ZERO], STACK_FULL - 2);
    unsigned total;
    assert_int_equal(stack_top(&series_kinds, &cells, 0, &total), CELL_ZERO);
    assert_int_equal(total, STACK_FULL);
}

static void holes_show_among_differences_only(void **state)
{
    (void)state;
    begin(0, 4096, 1);
    cells_add(&cells, 0, 2048, CELL_HOLE, 0);
    cells_finish(&cells);
    unsigned total;
    assert_int_equal(stack_top(&series_kinds, &cells, 0, NULL), SERIES_MAX);
    assert_int_equal(stack_top(&series_differences, &cells, 0, &total), CELL_HOLE);
    assert_int_equal(total, STACK_FULL / 2);
}

static void deep_layers_share_a_look(void **state)
{
    (void)state;
    begin(0, 1024, 2);
    cells_add(&cells, 0, 512, CELL_DATA, 6);
    cells_add(&cells, 512, 512, CELL_DATA, IMGTK_MAX_CHAIN - 1);
    cells_finish(&cells);
    assert_int_equal(stack_top(&series_layers, &cells, 0, NULL), 6);
    assert_int_equal(stack_top(&series_layers, &cells, 1, NULL), PALETTE_LAYERS - 1);
}

static void cells_that_are_alike_are_one_run(void **state)
{
    (void)state;
    struct run run;
    size_t at = 0;
    begin(0, 10 * 512, 10);
    cells_add(&cells, 512, 3 * 512, CELL_DATA, 0);
    cells_add(&cells, 4 * 512, 256, CELL_DATA, 0);
    cells_add(&cells, 9 * 512, 512, CELL_DATA, 0);
    cells_finish(&cells);
    assert_true(layout_next_run(&series_kinds, &cells, CELL_DATA, &at, 10, &run));
    assert_int_equal(run.first, 1);
    assert_int_equal(run.length, 3);
    assert_int_equal(run.height, STACK_FULL);
    assert_true(layout_next_run(&series_kinds, &cells, CELL_DATA, &at, 10, &run));
    assert_int_equal(run.first, 4);
    assert_int_equal(run.length, 1);
    assert_int_equal(run.height, STACK_FULL / 2);
    assert_true(layout_next_run(&series_kinds, &cells, CELL_DATA, &at, 10, &run));
    assert_int_equal(run.first, 9);
    assert_false(layout_next_run(&series_kinds, &cells, CELL_DATA, &at, 10, &run));
}

static void numbers_are_short(void **state)
{
    (void)state;
    char text[AXIS_TEXT], share[SHARE_TEXT];
    layout_format_offset(0, text);
    assert_string_equal(text, "0 B");
    layout_format_offset(UINT64_C(1536) << 20, text);
    assert_string_equal(text, "1.5 GiB");
    layout_format_offset(UINT64_C(15) << 40, text);
    assert_string_equal(text, "15 TiB");
    layout_format_share(0, 0, share);
    assert_string_equal(share, "0%");
    layout_format_share(1, 1u << 30, share);
    assert_string_equal(share, "<0.1%");
    layout_format_share(1, 8, share);
    assert_string_equal(share, "12.5%");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_powers_of_two),
        cmocka_unit_test_teardown(an_extent_is_shared_among_its_cells, end),
        cmocka_unit_test_teardown(a_cell_tells_the_layer_that_holds_the_most, end),
        cmocka_unit_test_teardown(what_is_not_told_is_left, end),
        cmocka_unit_test_teardown(nothing_has_no_cells, end),
        cmocka_unit_test_teardown(what_is_little_shows_and_nothing_exceeds_the_cell, end),
        cmocka_unit_test_teardown(holes_show_among_differences_only, end),
        cmocka_unit_test_teardown(deep_layers_share_a_look, end),
        cmocka_unit_test_teardown(cells_that_are_alike_are_one_run, end),
        cmocka_unit_test(numbers_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
