/* Chains of fake layers whose bytes and extents are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chain/image_internal.h"
#include "chain/source.h"

#define MAX_EXTENTS 64

struct fake {
    uint64_t size;
    uint8_t fill; /* every DATA byte of the layer */
    struct { uint64_t start, end; enum imgtk_extent_kind kind; } extents[MAX_EXTENTS];
    size_t count;
    unsigned asked; /* calls of extent() */
};

static uint64_t fake_size(void *handle)
{
    return ((struct fake *)handle)->size;
}

static enum imgtk_extent_kind kind_at(const struct fake *fake, uint64_t offset, uint64_t *end)
{
    *end = fake->size;
    for (size_t i = 0; i < fake->count; i++) {
        if (offset >= fake->extents[i].start && offset < fake->extents[i].end) {
            *end = fake->extents[i].end;
            return fake->extents[i].kind;
        }
        if (offset < fake->extents[i].start) {
            *end = fake->extents[i].start;
            break;
        }
    }
    return IMGTK_EXTENT_BACKING;
}

/* Answers in its natural size, whatever was asked. */
static int fake_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                       struct imgtk_error *err)
{
    struct fake *fake = handle;
    uint64_t end;
    (void)length, (void)err;
    fake->asked++;
    memset(out, 0, sizeof(*out));
    out->kind = kind_at(fake, offset, &end);
    out->flags = out->kind == IMGTK_EXTENT_BACKING ? IMGTK_EXTENT_UNALLOCATED : 0;
    out->length = end - offset;
    return 0;
}

static int fake_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct fake *fake = handle;
    (void)err;
    for (size_t i = 0; i < length; i++) {
        uint64_t end;
        ((uint8_t *)buf)[i] = kind_at(fake, offset + i, &end) == IMGTK_EXTENT_DATA ? fake->fill : 0;
    }
    return 0;
}

static const struct imgtk_driver fake_driver = {
    .struct_size = sizeof(struct imgtk_driver), .name = "fake", .size = fake_size, .read = fake_read,
    .extent = fake_extent };

static struct imgtk_image *chain(struct fake *layers, size_t count)
{
    struct imgtk_image *image = calloc(1, sizeof(*image));
    assert_non_null(image);
    for (size_t i = 0; i < count; i++) {
        image->layers[i].public = (struct imgtk_layer){
            .name = "fake", .driver = &fake_driver, .handle = &layers[i], .size = layers[i].size };
    }
    image->count = count;
    return image;
}

static void expect(struct imgtk_walk *walk, uint64_t offset, uint64_t length, enum imgtk_extent_kind kind, size_t depth,
                   bool present, uint64_t limit)
{
    struct imgtk_chain_extent found;
    assert_int_equal(imgtk_walk_merged(walk, offset, limit - offset, &found, NULL), 0);
    assert_int_equal(found.start, offset);
    assert_int_equal(found.extent.length, length);
    assert_int_equal(found.extent.kind, kind);
    assert_int_equal(found.depth, depth);
    assert_int_equal(found.present, present);
}

static void layers_overlay_each_other(void **state)
{
    (void)state;
    struct fake layers[] = {
        { .size = 1000, .fill = 1, .count = 2,
          .extents = { { 100, 200, IMGTK_EXTENT_DATA }, { 200, 300, IMGTK_EXTENT_ZERO } } },
        { .size = 1000, .fill = 2, .count = 1, .extents = { { 150, 500, IMGTK_EXTENT_DATA } } },
    };
    struct imgtk_image *image = chain(layers, 2);
    struct imgtk_walk *walk;
    assert_int_equal(imgtk_walk_new(image, &walk, NULL), 0);
    expect(walk, 0, 100, IMGTK_EXTENT_ZERO, 1, false, 1000);
    expect(walk, 100, 100, IMGTK_EXTENT_DATA, 0, true, 1000);
    expect(walk, 200, 100, IMGTK_EXTENT_ZERO, 0, true, 1000);
    expect(walk, 300, 200, IMGTK_EXTENT_DATA, 1, true, 1000);
    expect(walk, 500, 500, IMGTK_EXTENT_ZERO, 1, false, 1000);
    expect(walk, 310, 20, IMGTK_EXTENT_DATA, 1, true, 330); /* clipped to the request */

    uint8_t bytes[1000];
    assert_int_equal(imgtk_image_read(image, bytes, 1000, 0, NULL), 0);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(bytes[i], i < 100 || i >= 500 ? 0 : i < 200 ? 1 : i < 300 ? 0 : 2);
    imgtk_walk_free(walk);
    free(image);
}

static void a_short_layer_reads_as_zeroes_past_its_end(void **state)
{
    (void)state;
    struct fake layers[] = {
        { .size = 1000, .fill = 1 },
        { .size = 333, .fill = 2, .count = 1, .extents = { { 0, 333, IMGTK_EXTENT_DATA } } },
        { .size = 2000, .fill = 3, .count = 1, .extents = { { 0, 2000, IMGTK_EXTENT_DATA } } },
    };
    struct imgtk_image *image = chain(layers, 3);
    struct imgtk_walk *walk;
    assert_int_equal(imgtk_walk_new(image, &walk, NULL), 0);
    expect(walk, 0, 333, IMGTK_EXTENT_DATA, 1, true, 1000);
    expect(walk, 333, 667, IMGTK_EXTENT_ZERO, 0, false, 1000);
    uint8_t bytes[1000];
    assert_int_equal(imgtk_image_read(image, bytes, 1000, 0, NULL), 0);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(bytes[i], i < 333 ? 2 : 0);
    imgtk_walk_free(walk);
    free(image);
}

static void a_request_beyond_the_end_is_an_error(void **state)
{
    (void)state;
    struct fake layer = { .size = 1000, .fill = 1 };
    struct imgtk_image *image = chain(&layer, 1);
    struct imgtk_walk *walk;
    struct imgtk_chain_extent found;
    uint8_t byte;
    assert_int_equal(imgtk_walk_new(image, &walk, NULL), 0);
    assert_int_equal(imgtk_walk_next(walk, 0, 1001, &found, NULL), IMGTK_EINVAL);
    assert_int_equal(imgtk_walk_next(walk, 1000, 1, &found, NULL), IMGTK_EINVAL);
    assert_int_equal(imgtk_walk_next(walk, UINT64_MAX, 2, &found, NULL), IMGTK_EINVAL);
    assert_int_equal(imgtk_walk_next(walk, 999, 1, &found, NULL), 0);
    assert_int_equal(imgtk_image_read(image, &byte, 1, 1000, NULL), IMGTK_EINVAL);
    imgtk_walk_free(walk);
    free(image);
}

static void each_layer_is_asked_once_per_extent(void **state)
{
    (void)state;
    struct fake layers[2] = { { .size = 6400, .fill = 1 }, { .size = 6400, .fill = 2 } };
    for (size_t i = 0; i < MAX_EXTENTS; i++) {
        layers[1].extents[i].start = i * 100;
        layers[1].extents[i].end = i * 100 + 50;
        layers[1].extents[i].kind = IMGTK_EXTENT_DATA;
    }
    layers[1].count = MAX_EXTENTS;
    struct imgtk_image *image = chain(layers, 2);
    struct imgtk_walk *walk;
    struct imgtk_chain_extent found;
    size_t rows = 0;
    assert_int_equal(imgtk_walk_new(image, &walk, NULL), 0);
    for (uint64_t offset = 0; offset < 6400; offset += found.extent.length, rows++)
        assert_int_equal(imgtk_walk_merged(walk, offset, 6400 - offset, &found, NULL), 0);
    assert_int_equal(rows, 2 * MAX_EXTENTS);
    assert_int_equal(layers[0].asked, 1);
    assert_int_equal(layers[1].asked, 2 * MAX_EXTENTS);
    imgtk_walk_free(walk);
    free(image);
}

/* Extents that make up one, as those of compressed clusters do, and a conversion that takes them piece by piece. */
static void steps_through_one_extent_ask_for_its_parts_once(void **state)
{
    (void)state;
    struct fake layers[2] = { { .size = 6400, .fill = 1 }, { .size = 1000, .fill = 2 } };
    for (size_t i = 0; i < MAX_EXTENTS; i++) {
        layers[0].extents[i].start = i * 100;
        layers[0].extents[i].end = i * 100 + 100;
        layers[0].extents[i].kind = IMGTK_EXTENT_DATA;
    }
    layers[0].count = MAX_EXTENTS;
    struct imgtk_image *images[] = { chain(&layers[0], 1), chain(&layers[1], 1) };
    struct source source;
    struct source_walk *walk;
    assert_int_equal(source_init(&source, images, 2, NULL), 0);
    assert_int_equal(source_walk_new(&source, false, &walk, NULL), 0);
    for (uint64_t offset = 0; offset < 7400; offset += 10) {
        bool second = offset >= 6400;
        struct imgtk_chain_extent found;
        size_t image;
        assert_int_equal(source_walk_next(walk, offset, 7400 - offset, &found, &image, NULL), 0);
        assert_int_equal(image, second);
        assert_int_equal(found.start, offset);
        assert_int_equal(found.extent.length, (second ? 7400 : 6400) - offset);
        assert_int_equal(found.extent.kind, second ? IMGTK_EXTENT_ZERO : IMGTK_EXTENT_DATA);
    }
    assert_int_equal(layers[0].asked, MAX_EXTENTS);
    assert_int_equal(layers[1].asked, 1);

    struct imgtk_chain_extent found;
    size_t image;
    assert_int_equal(source_walk_next(walk, 50, 20, &found, &image, NULL), 0); /* backwards, and clipped */
    assert_int_equal(image, 0);
    assert_int_equal(found.start, 50);
    assert_int_equal(found.extent.length, 20);
    source_walk_free(walk);
    free(images[0]);
    free(images[1]);
}

static int empty_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                        struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)length, (void)err;
    memset(out, 0, sizeof(*out));
    return 0;
}

static void a_driver_without_progress_does_not_hang_the_walk(void **state)
{
    (void)state;
    static struct imgtk_driver stuck;
    struct fake layer = { .size = 1000 };
    struct imgtk_image *image = chain(&layer, 1);
    struct imgtk_walk *walk;
    struct imgtk_chain_extent found;
    stuck = fake_driver;
    stuck.extent = empty_extent;
    image->layers[0].public.driver = &stuck;
    assert_int_equal(imgtk_walk_new(image, &walk, NULL), 0);
    assert_int_equal(imgtk_walk_merged(walk, 0, 1000, &found, NULL), IMGTK_ECORRUPT);
    imgtk_walk_free(walk);
    free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_overlay_each_other),
        cmocka_unit_test(a_short_layer_reads_as_zeroes_past_its_end),
        cmocka_unit_test(a_request_beyond_the_end_is_an_error),
        cmocka_unit_test(each_layer_is_asked_once_per_extent),
        cmocka_unit_test(steps_through_one_extent_ask_for_its_parts_once),
        cmocka_unit_test(a_driver_without_progress_does_not_hang_the_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
