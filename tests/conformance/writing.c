/* Images that a driver writes. */
#include "conformance.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void enter_new_folder(const char *name)
{
    assert_int_equal(mkdir(name, 0700), 0);
    assert_int_equal(chdir(name), 0);
}

/* Under one name in a folder of its own, since an image may hold its name. */
static void write_image(const char *folder, struct imgtk_image *source, unsigned workers)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_convert job = {
        .sources = &source, .source_count = 1, .sparse_size = IMGTK_SPARSE_DEFAULT, .workers = workers,
        .target = { .name = "new.image", .format = subject.format, .format_opts = subject.options, .no_sync = true } };
    enter_new_folder(folder);
    assert_ok(imgtk_convert(subject.context, &job, &err));
    assert_int_equal(chdir(".."), 0);
}

static bool same_file(const char *one, const char *two)
{
    uint64_t size_one, size_two;
    uint8_t *a = read_whole_file(one, &size_one), *b = read_whole_file(two, &size_two);
    bool same = size_one == size_two && memcmp(a, b, (size_t)size_one) == 0;
    free(a);
    free(b);
    return same;
}

static void writes_what_it_reads(const char *path)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *image;
    uint8_t *buf = allocate(MAX_READ);
    assert_ok(open_image(path, subject.format, &image, &err));
    assert_int_equal(imgtk_image_size(image), subject.size);
    for (uint64_t offset = 0; offset < subject.size; offset += MAX_READ) {
        size_t length = (size_t)imgtk_min_u64(MAX_READ, subject.size - offset);
        assert_ok(imgtk_image_read(image, buf, length, offset, &err));
        check_bytes(buf, offset, length);
    }
    imgtk_image_close(image);
    free(buf);
}

void threads_write_the_same_file_as_one(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *content;
    (void)state;
    if (!imgtk_driver_can_write(top(subject.image)->driver))
        skip();
    assert_ok(open_image(subject.content_path, "raw", &content, &err));
    write_image("one", content, 1);
    writes_what_it_reads("one/new.image");
    for (unsigned i = 0; i < 3; i++) {
        char folder[16], path[32];
        snprintf(folder, sizeof(folder), "four%u", i);
        snprintf(path, sizeof(path), "%s/new.image", folder);
        write_image(folder, content, THREADS);
        assert_true(same_file("one/new.image", path));
        if (i == 0)
            writes_what_it_reads(path);
    }
    imgtk_image_close(content);
}
