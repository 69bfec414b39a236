/* One image used by several threads. */
#include "conformance.h"

#include <pthread.h>

struct reader {
    pthread_t thread;
    uint64_t random;
    const char *wrong;
    struct imgtk_error err;
};

/* cmocka's assertions are for its own thread. */
static const char *read_some(struct imgtk_walk *walk, uint8_t *buf, struct reader *reader)
{
    struct imgtk_chain_extent extent;
    uint64_t offset = next_random(&reader->random) % subject.size;
    uint64_t length = next_random(&reader->random) % 200000 + 1;
    length = imgtk_min_u64(length, subject.size - offset);
    if (imgtk_image_read(subject.image, buf, (size_t)length, offset, &reader->err))
        return reader->err.message;
    if (memcmp(buf, subject.content + offset, (size_t)length) != 0)
        return "the bytes differ";
    if (imgtk_walk_next(walk, offset, length, &extent, &reader->err))
        return reader->err.message;
    if (extent.start != offset || extent.extent.length == 0 || extent.extent.length > length)
        return "the extent is not within what was asked";
    if (extent.extent.kind == IMGTK_EXTENT_ZERO && !is_zero(offset, extent.extent.length))
        return "bytes that the extent calls zeroes are not";
    if (imgtk_walk_read(walk, buf, (size_t)length, offset, &reader->err))
        return reader->err.message;
    return memcmp(buf, subject.content + offset, (size_t)length) == 0 ? NULL : "the bytes of a walk differ";
}

static void *read_at_random(void *context)
{
    struct reader *reader = context;
    struct imgtk_walk *walk = NULL;
    uint8_t *buf = malloc(200000);
    if (!buf || imgtk_walk_new(subject.image, &walk, &reader->err))
        reader->wrong = "cannot begin";
    for (unsigned i = 0; !reader->wrong && i < 150; i++)
        reader->wrong = read_some(walk, buf, reader);
    imgtk_walk_free(walk);
    free(buf);
    return NULL;
}

void threads_read_and_walk_at_once(void **state)
{
    struct reader readers[THREADS] = { { 0 } };
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < THREADS; i++) {
        readers[i].random = i + 1;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_at_random, &readers[i]), 0);
    }
    for (unsigned i = 0; subject.size > 0 && i < THREADS; i++)
        pthread_join(readers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (readers[i].wrong)
            fail_msg("thread %u: %s", i, readers[i].wrong);
}
