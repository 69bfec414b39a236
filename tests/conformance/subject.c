/* The image under test, and what the cases share. */
#include "conformance.h"

#include <stdio.h>
#include <sys/stat.h>

struct subject subject;

void assert_ok_at(int status, const struct imgtk_error *err, const char *call, const char *file, int line)
{
    if (status)
        print_error("%s: %d: %s\n", call, status, err->message);
    _assert_true(status == 0, call, file, line);
}

void assert_error(int status, const struct imgtk_error *err)
{
    assert_true(status < 0);
    assert_int_equal(status, err->status);
    assert_true(err->message[0] != '\0');
    assert_null(strpbrk(err->message, "\r\n"));
}

uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

bool is_zero(uint64_t offset, uint64_t length)
{
    const uint8_t *bytes = subject.content + offset;
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)length - 1) == 0);
}

int open_image(const char *path, const char *format, struct imgtk_image **out, struct imgtk_error *err)
{
    struct imgtk_image_request request = { .format = format };
    return imgtk_image_open(subject.context, path, &request, out, err);
}

const struct imgtk_layer *top(struct imgtk_image *image)
{
    return imgtk_image_layer(image, 0);
}

void *allocate(size_t size)
{
    void *memory = malloc(size);
    assert_non_null(memory);
    return memory;
}

uint8_t *read_whole_file(const char *path, uint64_t *size)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &st), 0);
    *size = (uint64_t)st.st_size;
    uint8_t *bytes = allocate((size_t)st.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, file), (size_t)st.st_size);
    fclose(file);
    return bytes;
}

void check_bytes(const uint8_t *got, uint64_t offset, size_t length)
{
    if (memcmp(got, subject.content + offset, length) == 0)
        return;
    size_t at = 0;
    while (got[at] == subject.content[offset + at])
        at++;
    fail_msg("reading %zu bytes at offset %llu: byte %llu is 0x%02x, not 0x%02x", length, (unsigned long long)offset,
             (unsigned long long)offset + at, got[at], subject.content[offset + at]);
}

int ask_layer(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                     struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    return top(image)->driver->extent(top(image)->handle, offset, length, out, err);
}

int set_up(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t content_size;
    (void)state;
    uint8_t *content = read_whole_file(subject.content_path, &content_size);
    if (!subject.size)
        subject.size = content_size;
    subject.content = calloc(1, (size_t)subject.size + 1);
    assert_non_null(subject.content);
    memcpy(subject.content, content, (size_t)imgtk_min_u64(content_size, subject.size));
    free(content);
    assert_ok(imgtk_context_new(&subject.context, &err));
    assert_ok(open_image(subject.path, subject.format, &subject.image, &err));
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    imgtk_image_close(subject.image);
    imgtk_context_free(subject.context);
    free(subject.content);
    return 0;
}
