#include "image.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "imgtk/bytes.h"
#include "imgtk/info.h"
#include "seal.h"

static void keep_quiet(void *context, const char *message)
{
    (void)context;
    FUZZ_REQUIRE(message[0] != '\0');
}

struct imgtk_context *fuzz_context(void)
{
    struct imgtk_context *context = NULL;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_module *modules;
    size_t count;
    setenv("IMGTK_MODULE_PATH", FUZZ_MODULE_PATH, 0);
    setenv("IMGTK_CONFIG", FUZZ_CONFIG, 0);
    FUZZ_REQUIRE(imgtk_context_new(&context, &err) == 0);
    imgtk_context_set_references(context, IMGTK_REFERENCES_NONE);
    FUZZ_REQUIRE(imgtk_modules(context, &modules, &count, &err) == 0);
    return context;
}

static void write_all(int fd, const uint8_t *bytes, size_t length, uint64_t offset)
{
    FUZZ_REQUIRE(pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
}

static void unpack(int fd, struct fuzz_input input)
{
    size_t size = (size_t)fuzz_take(&input, 4) % (FUZZ_MAX_IMAGE + 1);
    FUZZ_REQUIRE(ftruncate(fd, (off_t)size) == 0);
    while (input.size > 0) {
        uint64_t offset = fuzz_take(&input, 4), length = fuzz_take(&input, 2);
        length = imgtk_min_u64(length, input.size);
        if (imgtk_range_fits(offset, length, size))
            write_all(fd, input.data, (size_t)length, offset);
        input.data += length;
        input.size -= (size_t)length;
    }
}

static void seal_file(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    if (size == 0)
        return;
    uint8_t *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    FUZZ_REQUIRE(map != MAP_FAILED);
    seal_image(map, (size_t)size);
    munmap(map, (size_t)size);
}

int fuzz_image_file(const uint8_t *data, size_t size, char name[32])
{
    struct fuzz_input input = { data, size };
    size_t tag = strlen(FUZZ_PACKED_TAG);
    int fd = memfd_create("image", MFD_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0);
    snprintf(name, 32, "fd:%d", fd);
    if (size <= tag || memcmp(data, FUZZ_PACKED_TAG, tag) != 0) {
        write_all(fd, data, size, 0);
        return fd;
    }
    input.data += tag;
    input.size -= tag;
    bool sealed = fuzz_take(&input, 1) & FUZZ_PACKED_SEALED;
    unpack(fd, input);
    if (sealed)
        seal_file(fd);
    return fd;
}

void fuzz_check_image(struct imgtk_image *image, struct imgtk_check *out, uint32_t repair)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    *out = (struct imgtk_check){ .repair = repair, .workers = 1, .report = keep_quiet };
    if (fuzz_judge(imgtk_image_check(image, out, &err), &err) != 0)
        out->check_errors++;
}
