/* Images that were damaged: errors, or the right bytes, and never a crash. */
#include "conformance.h"

#include <fcntl.h>
#include <unistd.h>

#define MAX_STEPS 2000u      /* extents of a damaged image that are looked at */
#define DAMAGE_READ (256u << 10) /* bytes of a damaged image that are read */
#define DAMAGE_HEAD 512u      /* bytes at either end that are damaged one by one */
#define DAMAGE_SAMPLES 300u    /* places elsewhere in the metadata */

/* Opens, walks and reads; whatever comes of it but a crash is right, when `exact` only the disk's own bytes are. */
static void use_damaged(const char *path, bool exact)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *image;
    struct imgtk_extent extent;
    uint8_t *buf = allocate(DAMAGE_READ);
    int status = open_image(path, subject.format, &image, &err);
    if (status) {
        assert_error(status, &err);
        free(buf);
        return;
    }
    uint64_t size = imgtk_image_size(image), read = 0;
    exact = exact && size == subject.size;
    unsigned steps = 0;
    for (uint64_t offset = 0; !status && offset < size && steps < MAX_STEPS; offset += extent.length, steps++) {
        status = ask_layer(image, offset, size - offset, &extent, &err);
        if (status) {
            assert_error(status, &err);
            break;
        }
        assert_true(extent.length > 0 && extent.length <= INT64_MAX);
        size_t length = (size_t)imgtk_min_u64(imgtk_min_u64(extent.length, size - offset), 4096);
        if (read + length > DAMAGE_READ)
            continue;
        read += length;
        if (imgtk_image_read(image, buf, length, offset, &err) == 0 && exact)
            check_bytes(buf, offset, length);
    }
    imgtk_image_close(image);
    free(buf);
}

static int make_copy(const char *path, const uint8_t *bytes, uint64_t size)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, (size_t)size, 0), (ssize_t)size);
    return fd;
}

static const char damaged_name[] = "damaged.image";

void truncation_is_an_error_or_harmless(void **state)
{
    uint64_t size;
    (void)state;
    if (strcmp(subject.format, "raw") == 0)
        skip(); /* a shorter raw image is a smaller disk */
    uint8_t *bytes = read_whole_file(subject.path, &size);
    int fd = make_copy(damaged_name, bytes, size);
    for (uint64_t length = size; length > 0;) {
        uint64_t step = length <= DAMAGE_HEAD || size - length < SECTOR + 8 ? 3 : length > 1u << 20 ? 321777 : 2043;
        length -= imgtk_min_u64(step, length);
        assert_int_equal(ftruncate(fd, (off_t)length), 0);
        use_damaged(damaged_name, true);
    }
    close(fd);
    unlink(damaged_name);
    free(bytes);
}

static void flip(int fd, const uint8_t *bytes, uint64_t at, uint8_t mask)
{
    uint8_t changed = bytes[at] ^ mask;
    assert_int_equal(pwrite(fd, &changed, 1, (off_t)at), 1);
    use_damaged(damaged_name, false);
    assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
}

void flipped_bytes_never_crash(void **state)
{
    uint64_t size, random = 99;
    (void)state;
    uint8_t *bytes = read_whole_file(subject.path, &size);
    int fd = make_copy(damaged_name, bytes, size);
    for (uint64_t at = 0; at < imgtk_min_u64(size, DAMAGE_HEAD); at++) {
        flip(fd, bytes, at, 0xFF);
        flip(fd, bytes, at, (uint8_t)(1u << (next_random(&random) % 8)));
        flip(fd, bytes, size - 1 - at, (uint8_t)(1u << (next_random(&random) % 8)));
    }
    for (unsigned i = 0; size > 0 && i < DAMAGE_SAMPLES; i++) {
        uint64_t reach = i % 2 ? size : imgtk_min_u64(size, 64u << 10);
        flip(fd, bytes, next_random(&random) % reach, (uint8_t)(next_random(&random) % 255 + 1));
    }
    close(fd);
    unlink(damaged_name);
    free(bytes);
}
