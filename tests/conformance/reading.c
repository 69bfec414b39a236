/* The bytes of a disk, however they are asked for. */
#include "conformance.h"

void size_is_the_disks(void **state)
{
    (void)state;
    assert_int_equal(imgtk_image_size(subject.image), subject.size);
    assert_int_equal(top(subject.image)->size, subject.size);
}


/* As much of [offset, offset + length) as lies within the disk. */
static void read_and_check(uint8_t *buf, uint64_t offset, uint64_t length)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (offset >= subject.size)
        return;
    length = imgtk_min_u64(length, subject.size - offset);
    memset(buf, 0xA5, (size_t)length + 1);
    assert_ok(imgtk_image_read(subject.image, buf, (size_t)length, offset, &err));
    assert_int_equal(buf[length], 0xA5);
    check_bytes(buf, offset, (size_t)length);
}

static const uint32_t lengths[] = { 1, 2, 3, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 1u << 20, MAX_READ };
enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

void reads_the_whole_disk(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += MAX_READ - 7)
        read_and_check(buf, offset, MAX_READ);
    free(buf);
}

void reads_of_every_alignment_and_length(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    uint64_t random = 42;
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < 300; i++) {
        uint64_t offset = next_random(&random) % subject.size;
        if (i % 3 == 0)
            offset = imgtk_round_down(offset, SECTOR);
        read_and_check(buf, offset, lengths[i % LENGTHS]);
    }
    free(buf);
}

void reads_to_the_end(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++)
        if (lengths[i] <= subject.size)
            read_and_check(buf, subject.size - lengths[i], lengths[i]);
    free(buf);
}

void reads_across_every_boundary(void **state)
{
    static const uint32_t around[] = { 1, SECTOR, 70000 };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint8_t *buf = allocate(2 * 70000 + 1);
    struct imgtk_extent extent;
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += extent.length) {
        assert_ok(ask_layer(subject.image, offset, subject.size - offset, &extent, &err));
        for (size_t i = 0; offset > 0 && i < sizeof(around) / sizeof(around[0]); i++) {
            uint64_t before = imgtk_min_u64(around[i], offset);
            read_and_check(buf, offset - before, before + around[i]);
        }
    }
    free(buf);
}

void requests_past_the_end_are_errors(void **state)
{
    const uint64_t size = subject.size;
    const struct { uint64_t offset, length; } requests[] = {
        { size, 1 }, { size ? size - 1 : 0, 2 }, { size + 1, 1 }, { 0, size + 1 }, { UINT64_MAX, 1 },
        { UINT64_MAX - 4095, 4096 }, { size + 4096, 4096 }, { INT64_MAX, 512 } };
    struct imgtk_walk *walk;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint8_t *buf = allocate((size_t)size + 4096);
    (void)state;
    assert_ok(imgtk_walk_new(subject.image, &walk, &err));
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct imgtk_chain_extent extent;
        err = (struct imgtk_error)IMGTK_ERROR_INIT;
        assert_error(imgtk_image_read(subject.image, buf, (size_t)requests[i].length, requests[i].offset, &err), &err);
        err = (struct imgtk_error)IMGTK_ERROR_INIT;
        assert_error(imgtk_walk_next(walk, requests[i].offset, requests[i].length, &extent, &err), &err);
    }
    imgtk_walk_free(walk);
    free(buf);
}
