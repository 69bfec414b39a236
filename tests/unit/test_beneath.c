/* What lies beneath a folder: by the spelling of a path, and where there is no openat2(). */
#include <errno.h>

#include "chain/beneath.h"
#include "references.h"

static void walking_opens_no_more(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int os_errno;
    } cases[] = {
        { "base", 0 },          { "sub/deep", 0 },    { "./sub//deep", 0 },   { "nx", ENOENT },     { "sub/nx", ENOENT },
        { "base/x", ENOTDIR },  { "../secret", EXDEV }, { "sub/../base", EXDEV }, { "out", EXDEV }, { "up/secret", EXDEV },
        { "inside", EXDEV },    { "/etc/passwd", EXDEV }, { "fifo", EMEDIUMTYPE }, { "sub", EMEDIUMTYPE },
    };
    link_to("../secret", "images/out");
    link_to("..", "images/up");
    link_to("base", "images/inside");
    assert_int_equal(mkfifo(scratch_path(&scratch, "images/fifo"), 0600), 0);
    int folder = open(absolute("images"), O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = beneath_open_by_walking(folder, cases[i].path, O_RDONLY);
        if (cases[i].os_errno ? fd >= 0 || errno != cases[i].os_errno : fd < 0)
            fail_msg("%s: %d, %s", cases[i].path, fd, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    close(folder);
}

static void paths_are_normalised(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "/", "/" },        { "", "/" },           { "/a/b", "/a/b" },        { "//a///b/", "/a/b" },
        { "/a/./b/.", "/a/b" }, { "/a/../b", "/b" }, { "/../../a", "/a" },      { "/a/b/../..", "/" },
        { "/a/..b/...", "/a/..b/..." },
    };
    char out[PATH_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(path_normalise(cases[i][0], out));
        assert_string_equal(out, cases[i][1]);
    }
    assert_string_equal(path_beneath("/a/b", "/a"), "b");
    assert_string_equal(path_beneath("/a/b", "/"), "a/b");
    assert_null(path_beneath("/a", "/a"));
    assert_null(path_beneath("/ab/c", "/a"));
    assert_null(path_beneath("/", "/"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(walking_opens_no_more),
        WITH_SCRATCH(paths_are_normalised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
