/* What an image may name, and what happens when it names something else. */
#include <errno.h>
#include <sys/sysmacros.h>

#include "beneath.h"
#include "context.h"
#include "imgtk/image.h"
#include "reference.h"
#include "scratch.h"
#include "storage/storage.h"

/*
 * root/
 *   images/  disk  base  sub/deep  and what a test adds
 *   allowed/ library
 *   secret
 */
static struct scratch scratch;
static struct imgtk_context context;
static char *allowed[1];
static char image[PATH_MAX];

/* One storage module: "mod://..." opens bytes that spell the name. */
static int mod_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                    struct imgtk_error *err)
{
    (void)flags, (void)opts, (void)err;
    *handle = strdup(name);
    return 0;
}

static int mod_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    (void)err;
    *out = strlen(handle);
    return 0;
}

static int mod_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    (void)err;
    size_t size = strlen(handle);
    *done = offset >= size ? 0 : size - offset < length ? size - (size_t)offset : length;
    memcpy(buf, (char *)handle + offset, *done);
    return 0;
}

static const struct imgtk_storage_ops mod_ops = {
    .struct_size = offsetof(struct imgtk_storage_ops, flags), /* as an older module would be */
    .name = "mod",
    .open = mod_open,
    .close = free,
    .size = mod_size,
    .pread = mod_pread,
};

int registry_storage_for(struct imgtk_context *unused, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err)
{
    (void)unused, (void)err;
    *out = strncmp(name, "mod://", 6) == 0 ? &mod_ops : NULL;
    return 0;
}

bool registry_storage_has_option(struct imgtk_context *unused, const char *option)
{
    (void)unused, (void)option;
    return false;
}

const char *registry_storage_module(const char *name)
{
    (void)name;
    return NULL;
}

/* Whoever links context.c links the registry, whose work is done by the function above. */
void context_note(struct imgtk_context *unused, const char *format, ...)
{
    (void)unused, (void)format;
}

static int set_up(void **state)
{
    (void)state;
    scratch_new(&scratch);
    scratch_folder(&scratch, "images");
    scratch_folder(&scratch, "images/sub");
    scratch_folder(&scratch, "allowed");
    scratch_file(&scratch, "images/disk", "disk");
    scratch_file(&scratch, "images/base", "base");
    scratch_file(&scratch, "images/sub/deep", "deep");
    scratch_file(&scratch, "allowed/library", "library");
    scratch_file(&scratch, "secret", "secret");
    snprintf(image, sizeof(image), "%s/images/disk", scratch.root);
    memset(&context, 0, sizeof(context));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(allowed[0]);
    allowed[0] = NULL;
    scratch_free(&scratch);
    return 0;
}

static void allow(const char *folder)
{
    free(allowed[0]);
    allowed[0] = strdup(folder);
    context.config.allow_dirs = allowed;
    context.config.allow_dir_count = 1;
}

static int try_open(const char *image_name, const char *name, char shown[PATH_MAX], char content[64],
                    struct imgtk_error *err)
{
    struct imgtk_references *refs;
    struct imgtk_storage *storage;
    assert_int_equal(references_new(&context, image_name, false, &refs, err), 0);
    int status = imgtk_reference_open(refs, name, 0, &storage, err);
    if (status == 0) {
        size_t done;
        assert_int_equal(imgtk_storage_pread_some(storage, content, 63, 0, &done, NULL), 0);
        content[done] = '\0';
        snprintf(shown, PATH_MAX, "%s", imgtk_storage_name(storage));
        imgtk_storage_close(storage);
    } else {
        assert_null(storage);
    }
    references_free(refs);
    return status;
}

static void expect_opened_from(const char *image_name, const char *name, const char *content)
{
    char shown[PATH_MAX], text[64];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (try_open(image_name, name, shown, text, &err))
        fail_msg("%s: %s", name, err.message);
    assert_string_equal(text, content);
}

static void expect_opened(const char *name, const char *content)
{
    expect_opened_from(image, name, content);
}

static void expect_failed_from(const char *image_name, const char *name, int status, const char *message)
{
    char shown[PATH_MAX], text[64];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int actual = try_open(image_name, name, shown, text, &err);
    if (actual != status)
        fail_msg("%s: %d (%s) instead of %d", name, actual, err.message, status);
    if (!strstr(err.message, message))
        fail_msg("'%s' lacks '%s'", err.message, message);
}

static void expect_refused(const char *name, const char *message)
{
    expect_failed_from(image, name, IMGTK_EREFUSED, message);
}

static void link_to(const char *target, const char *name)
{
    assert_int_equal(symlink(target, scratch_path(&scratch, name)), 0);
}

static const char *absolute(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", scratch.root, name);
    return path;
}

/* ---- Beneath ------------------------------------------------------------------------ */

static void opens_what_lies_beneath(void **state)
{
    (void)state;
    expect_opened("base", "base");
    expect_opened("./base", "base");
    expect_opened("sub/deep", "deep");
    expect_opened("sub/../base", "base");
    expect_opened(absolute("images/sub/deep"), "deep");
    expect_opened(absolute("images/../images/base"), "base");
    expect_failed_from(image, "nx", IMGTK_ENOTFOUND, "images/nx': No such file or directory");
    expect_failed_from(image, "", IMGTK_ECORRUPT, "without a name");
}

static void refuses_what_does_not(void **state)
{
    (void)state;
    char message[PATH_MAX];
    snprintf(message, sizeof(message),
             "refers to '/etc/passwd', which is outside '%s/images': allow it with --allow-dir DIR or --references=any",
             scratch.root);
    expect_refused("/etc/passwd", message);
    expect_refused("../secret", "outside");
    expect_refused("sub/../../secret", "outside");
    expect_refused("../nx", "outside"); /* does not tell whether it is there */
    expect_refused(absolute("secret"), "outside");
    expect_refused(absolute("images/../secret"), "outside");
    expect_refused(absolute("images"), "outside");
    expect_refused("..", "outside");
    expect_refused("/", "outside");
    expect_refused(absolute("imagesmore"), "outside");
}

static void links_do_not_lead_out(void **state)
{
    (void)state;
    link_to("../secret", "images/out");
    link_to(absolute("secret"), "images/absolute");
    link_to("..", "images/up");
    link_to("/proc/self/cwd", "images/magic");
    link_to("circle", "images/circle");
    expect_refused("out", "outside");
    expect_refused("absolute", "outside");
    expect_refused("up/secret", "outside");
    expect_refused("magic/x", "outside");
    expect_refused("circle", "outside");
    expect_refused(absolute("images/out"), "outside");
}

static void links_inside_are_followed(void **state)
{
    (void)state;
    link_to("base", "images/inside");
    link_to(absolute("images/base"), "images/inside-absolute");
    link_to("sub", "images/folder");
    link_to("../base", "images/sub/back");
    expect_opened("inside", "base");
    expect_opened("inside-absolute", "base");
    expect_opened("folder/deep", "deep");
    expect_opened("sub/back", "base");
    expect_opened("folder/../base", "base");
}

static void refuses_what_is_no_regular_file(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(scratch_path(&scratch, "images/fifo"), 0600), 0);
    expect_refused("fifo", "not a regular file");
    expect_refused("sub", "not a regular file");
    expect_refused(".", "not a regular file");
    if (mknod(scratch_path(&scratch, "images/device"), S_IFCHR | 0600, makedev(1, 5)) == 0)
        expect_refused("device", "not a regular file");
    else
        print_message("not tested: cannot make a device node: %s\n", strerror(errno));
}

static void refuses_protocols(void **state)
{
    (void)state;
    static const char *const names[] = {
        "nbd://127.0.0.1/x", "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "http://example.com/x", "fd:0",
        "file:base", "null:", "mod://x", "C:\\base.vhd", "nosuch:base",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        expect_refused(names[i], "which is not a file");
    expect_failed_from(image, "-", IMGTK_ENOTFOUND, "No such file"); /* a file of that name, not stdin */
}

static void allowed_folders_are_searched(void **state)
{
    (void)state;
    link_to(absolute("allowed/library"), "images/library");
    link_to("../allowed", "images/folder");
    expect_refused(absolute("allowed/library"), "outside");
    expect_refused("library", "outside");
    allow(absolute("allowed"));
    expect_opened(absolute("allowed/library"), "library");
    expect_opened("../allowed/library", "library");
    expect_opened("library", "library");
    expect_opened("folder/library", "library");
    expect_refused("../secret", "outside");
    expect_refused(absolute("allowed/../secret"), "outside");
    link_to("../secret", "allowed/out");
    expect_refused(absolute("allowed/out"), "outside");
    expect_refused("folder/out", "outside");
    link_to(absolute("allowed"), "other-name");
    allow(absolute("other-name")); /* a link that the user names is the user's word */
    expect_opened(absolute("other-name/library"), "library");
    expect_opened(absolute("allowed/library"), "library");
    allow(absolute("nx"));
    expect_refused(absolute("allowed/library"), "outside");
    allow("/");
    expect_opened(absolute("secret"), "secret");
}

static void the_folder_is_that_of_the_name(void **state)
{
    (void)state;
    char cwd[PATH_MAX], shown[PATH_MAX], text[64];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    scratch_folder(&scratch, "links");
    scratch_file(&scratch, "links/base", "base of links");
    link_to("../images/disk", "links/disk");
    expect_opened_from(absolute("links/disk"), "base", "base of links");
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(chdir(absolute("images")), 0);
    assert_int_equal(try_open("disk", "base", shown, text, &err), 0);
    assert_string_equal(shown, "base");
    assert_int_equal(try_open("../images/disk", "sub/deep", shown, text, &err), 0);
    assert_string_equal(shown, "../images/sub/deep");
    assert_int_equal(try_open("file:disk", "base", shown, text, &err), 0);
    assert_int_equal(try_open("disk", absolute("images/base"), shown, text, &err), 0);
    assert_string_equal(shown, absolute("images/base"));
    expect_failed_from("disk", "../secret", IMGTK_EREFUSED, "outside '.'");
    assert_int_equal(chdir(cwd), 0);
}

static void images_without_a_folder_have_no_references(void **state)
{
    (void)state;
    static const char *const images[] = { "mod://host/dir/disk", "-", "fd:3", "null:" };
    for (size_t i = 0; i < 4; i++) {
        expect_failed_from(images[i], "base", IMGTK_EREFUSED, "not in a folder");
        expect_failed_from(images[i], image, IMGTK_EREFUSED, "not in a folder");
    }
}

static void long_names_are_refused(void **state)
{
    (void)state;
    char name[3 * PATH_MAX];
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    expect_failed_from(image, name, IMGTK_ELIMIT, "limit of 4095");
    for (size_t i = 0; i + 2 < sizeof(name); i += 2)
        memcpy(name + i, "./", 2);
    expect_failed_from(image, name, IMGTK_ELIMIT, "limit of 4095");
}

/* ---- The other policies ---------------------------------------------------------------- */

static void any_opens_files_and_protocols(void **state)
{
    (void)state;
    context.config.references = IMGTK_REFERENCES_ANY;
    expect_opened("base", "base");
    expect_opened("../secret", "secret");
    expect_opened(absolute("secret"), "secret");
    expect_opened("mod://x/y", "mod://x/y");
    expect_opened("file:/dev/null", "");
    expect_opened_from("mod://host/dir/disk?key=a/b", "base", "mod://host/dir/base");
    expect_opened_from("mod://host/dir/disk", absolute("secret"), "secret");
    expect_failed_from("-", "base", IMGTK_EREFUSED, "not in a folder");
    expect_failed_from(image, "nx", IMGTK_ENOTFOUND, "No such file");
    expect_refused("json:{}", "json:");
    assert_int_equal(mkfifo(scratch_path(&scratch, "images/fifo"), 0600), 0);
    expect_refused("fifo", "neither a regular file nor a block device");
    expect_refused("/dev/zero", "neither a regular file nor a block device");
    expect_refused("sub", "neither a regular file nor a block device");
}

static void none_opens_nothing(void **state)
{
    (void)state;
    context.config.references = IMGTK_REFERENCES_NONE;
    allow("/");
    expect_refused("base", "--references=none");
}

static void forbidden_wins(void **state)
{
    (void)state;
    struct imgtk_references *refs;
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    context.config.references = IMGTK_REFERENCES_ANY;
    assert_int_equal(references_new(&context, image, true, &refs, NULL), 0);
    assert_int_equal(imgtk_reference_open(refs, "base", 0, &storage, &err), IMGTK_EREFUSED);
    references_free(refs);
}

static void credentials_are_not_shown(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "mod://user:pass@host/x?sig=1", "mod://host/x?" },
        { "mod:///x?socket=/run/a", "mod:///x?socket=/run/a" },
        { "mod://host/a@b:c", "mod://host/a@b:c" },
        { "mod://host:80/x", "mod://host:80/x" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct imgtk_storage *storage;
        assert_int_equal(imgtk_storage_open(&context, cases[i][0], 0, NULL, &storage, NULL), 0);
        assert_string_equal(imgtk_storage_name(storage), cases[i][1]);
        imgtk_storage_close(storage);
    }
}

/* ---- Without openat2 ---------------------------------------------------------------------- */

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

/* ---- Creating ------------------------------------------------------------------------------- */

static void created_files_appear_together(void **state)
{
    (void)state;
    for (int commit = 0; commit < 2; commit++) {
        struct imgtk_references *refs;
        struct imgtk_storage *first, *second;
        assert_int_equal(references_new(&context, absolute("images/new.vmdk"), false, &refs, NULL), 0);
        assert_string_equal(imgtk_references_image_name(refs), "new.vmdk");
        assert_int_equal(imgtk_reference_create(refs, "new-f001.vmdk", &first, NULL), 0);
        assert_int_equal(imgtk_reference_create(refs, absolute("secret"), &second, NULL), 0); /* the user's word */
        assert_int_equal(imgtk_storage_pwrite(first, "one", 3, 0, NULL), 0);
        assert_int_equal(imgtk_storage_pwrite(second, "two", 3, 0, NULL), 0);
        if (commit)
            assert_int_equal(references_commit(refs, false, NULL), 0);
        references_free(refs);
        const char *text = scratch_read(&scratch, "images/new-f001.vmdk");
        assert_true(commit ? text && strcmp(text, "one") == 0 : text == NULL);
        assert_string_equal(scratch_read(&scratch, "secret"), commit ? "two" : "secret");
        assert_int_equal(scratch_entries(&scratch, "images"), commit ? 4 : 3);
    }
}

static void nothing_is_made_beside_a_stream(void **state)
{
    (void)state;
    struct imgtk_references *refs;
    struct imgtk_storage *storage;
    assert_int_equal(references_new(&context, "-", false, &refs, NULL), 0);
    assert_string_equal(imgtk_references_image_name(refs), "disk");
    assert_int_equal(imgtk_reference_create(refs, "extent", &storage, NULL), IMGTK_EUNSUPPORTED);
    assert_int_equal(references_commit(refs, false, NULL), 0);
    references_free(refs);
    references_free(NULL);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(opens_what_lies_beneath),
        WITH_SCRATCH(refuses_what_does_not),
        WITH_SCRATCH(links_do_not_lead_out),
        WITH_SCRATCH(links_inside_are_followed),
        WITH_SCRATCH(refuses_what_is_no_regular_file),
        WITH_SCRATCH(refuses_protocols),
        WITH_SCRATCH(allowed_folders_are_searched),
        WITH_SCRATCH(the_folder_is_that_of_the_name),
        WITH_SCRATCH(images_without_a_folder_have_no_references),
        WITH_SCRATCH(long_names_are_refused),
        WITH_SCRATCH(any_opens_files_and_protocols),
        WITH_SCRATCH(none_opens_nothing),
        WITH_SCRATCH(forbidden_wins),
        WITH_SCRATCH(credentials_are_not_shown),
        WITH_SCRATCH(walking_opens_no_more),
        WITH_SCRATCH(paths_are_normalised),
        WITH_SCRATCH(created_files_appear_together),
        WITH_SCRATCH(nothing_is_made_beside_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
