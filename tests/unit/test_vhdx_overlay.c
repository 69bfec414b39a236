/* Patches of a log: whatever their order and overlaps, the result is that of applying them one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../formats/vhdx/vhdx.h"

enum { SECTORS = 64, MAX_PATCHES = 40 };

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* Zero patches are of any length, data patches are one sector; `source` tells them apart. */
static struct vhdx_patch random_patch(uint32_t *seed, size_t number)
{
    uint64_t at = next_random(seed) % SECTORS, length = 1 + next_random(seed) % 20;
    bool data = next_random(seed) % 2;
    if (data || at + length > SECTORS)
        length = 1;
    return (struct vhdx_patch){ .start = at * VHDX_LOG_SECTOR, .end = (at + length) * VHDX_LOG_SECTOR,
                                .source = data ? number + 1 : 0 };
}

static void paint(uint64_t painted[SECTORS], const struct vhdx_patch *patch)
{
    for (uint64_t at = patch->start; at < patch->end; at += VHDX_LOG_SECTOR)
        painted[at / VHDX_LOG_SECTOR] = patch->source;
}

static void assert_disjoint(const struct vhdx_overlay *overlay)
{
    for (size_t i = 0; i < overlay->count; i++) {
        assert_true(overlay->patches[i].start < overlay->patches[i].end);
        assert_true(i == 0 || overlay->patches[i - 1].end <= overlay->patches[i].start);
    }
}

static void random_patches_paint_the_same(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        uint64_t expected[SECTORS], found[SECTORS];
        size_t count = 1 + next_random(&seed) % MAX_PATCHES;
        struct vhdx_patch *patches = calloc(count, sizeof(*patches));
        struct vhdx_overlay overlay;
        memset(expected, 0xff, sizeof(expected));
        memset(found, 0xff, sizeof(found));
        for (size_t i = 0; i < count; i++) {
            patches[i] = random_patch(&seed, i);
            paint(expected, &patches[i]);
        }
        assert_int_equal(vhdx_overlay_build(patches, count, &overlay, NULL), 0);
        assert_disjoint(&overlay);
        for (size_t i = 0; i < overlay.count; i++)
            paint(found, &overlay.patches[i]);
        assert_memory_equal(found, expected, sizeof(found));
        vhdx_overlay_free(&overlay);
    }
}

static void find_gives_the_first_that_ends_above(void **state)
{
    (void)state;
    struct vhdx_patch *patches = calloc(2, sizeof(*patches));
    struct vhdx_overlay overlay, empty = { 0 };
    patches[0] = (struct vhdx_patch){ .start = 40960, .end = 45056 };
    patches[1] = (struct vhdx_patch){ .start = 4096, .end = 8192 };
    assert_int_equal(vhdx_overlay_build(patches, 2, &overlay, NULL), 0);
    assert_int_equal(vhdx_overlay_find(&overlay, 0)->start, 4096);
    assert_int_equal(vhdx_overlay_find(&overlay, 8191)->start, 4096);
    assert_int_equal(vhdx_overlay_find(&overlay, 8192)->start, 40960);
    assert_null(vhdx_overlay_find(&overlay, 45056));
    assert_null(vhdx_overlay_find(&empty, 0));
    vhdx_overlay_free(&overlay);
}

static void no_patches_make_an_empty_overlay(void **state)
{
    (void)state;
    struct vhdx_overlay overlay;
    assert_int_equal(vhdx_overlay_build(NULL, 0, &overlay, NULL), 0);
    assert_int_equal(overlay.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_patches_paint_the_same),
        cmocka_unit_test(find_gives_the_first_that_ends_above),
        cmocka_unit_test(no_patches_make_an_empty_overlay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
