/* What an image may name, and what happens when it names something else. */
#include <errno.h>
#include <sys/sysmacros.h>

#include "references.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
