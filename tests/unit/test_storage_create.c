/* New files, which have no name before they are complete, whatever happens meanwhile. */
#include <errno.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "storages.h"

/* ---- Creating --------------------------------------------------------------------- */

static void a_file_appears_when_committed(void **state)
{
    (void)state;
    for (int sync = 0; sync < 2; sync++) {
        scratch_folder(&scratch, sync ? "synced" : "plain");
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s/new", scratch.root, sync ? "synced" : "plain");
        struct imgtk_storage *storage = create_storage(path);
        assert_int_equal(abilities(storage),
                         IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_READS_ZERO | IMGTK_STORAGE_HAS_EXTENTS);
        assert_int_equal(size_of(storage), 0);
        put(storage, "content", 3);
        expect_bytes(storage, 3, "content");
        assert_int_equal(access(path, F_OK), -1);
        assert_int_equal(imgtk_storage_commit(storage, sync, NULL), 0);
        imgtk_storage_close(storage);
        storage = open_storage(path, 0);
        expect_zeroes(storage, 0, 3);
        expect_bytes(storage, 3, "content");
        imgtk_storage_close(storage);
        assert_int_equal(scratch_entries(&scratch, sync ? "synced" : "plain"), 1);
    }
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    (void)state;
    scratch_folder(&scratch, "d");
    scratch_file(&scratch, "d/old", "old content");
    const char *names[] = { "d/new", "d/old" };
    for (size_t i = 0; i < 2; i++) {
        struct imgtk_storage *storage = create_storage(scratch_path(&scratch, names[i]));
        put(storage, "new", 0);
        imgtk_storage_close(storage);
    }
    assert_int_equal(scratch_entries(&scratch, "d"), 1);
    assert_string_equal(scratch_read(&scratch, "d/old"), "old content");
}

static void replacing_keeps_mode_and_owner(void **state)
{
    (void)state;
    scratch_folder(&scratch, "d");
    scratch_file(&scratch, "d/old", "old content, which is longer");
    const char *path = scratch_path(&scratch, "d/old");
    assert_int_equal(chmod(path, 0640), 0);
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(chown(path, 1234, 4321), 0);
    struct imgtk_storage *storage = create_storage(path);
    put(storage, "new", 0);
    assert_string_equal(scratch_read(&scratch, "d/old"), "old content, which is longer");
    assert_int_equal(imgtk_storage_commit(storage, true, NULL), 0);
    imgtk_storage_close(storage);
    assert_string_equal(scratch_read(&scratch, "d/old"), "new");
    struct stat st;
    assert_int_equal(stat(scratch_path(&scratch, "d/old"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_true(!root || (st.st_uid == 1234 && st.st_gid == 4321));
    assert_int_equal(scratch_entries(&scratch, "d"), 1);
}

static void a_new_file_obeys_the_umask(void **state)
{
    (void)state;
    mode_t old = umask(027);
    struct imgtk_storage *storage = create_storage(scratch_path(&scratch, "new"));
    umask(old);
    assert_int_equal(imgtk_storage_commit(storage, false, NULL), 0);
    imgtk_storage_close(storage);
    struct stat st;
    assert_int_equal(stat(scratch_path(&scratch, "new"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void a_link_stays_and_its_target_is_replaced(void **state)
{
    (void)state;
    scratch_folder(&scratch, "there");
    scratch_file(&scratch, "there/file", "old");
    char link[PATH_MAX];
    snprintf(link, sizeof(link), "%s/link", scratch.root);
    assert_int_equal(symlink("second", link), 0);
    assert_int_equal(symlink("there/file", scratch_path(&scratch, "second")), 0);
    create_and_commit(link, "new");
    assert_string_equal(scratch_read(&scratch, "there/file"), "new");
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(unlink(scratch_path(&scratch, "there/file")), 0);
    create_and_commit(link, "dangling");
    assert_string_equal(scratch_read(&scratch, "there/file"), "dangling");
    assert_int_equal(symlink("loop", scratch_path(&scratch, "loop")), 0);
    struct imgtk_storage *storage;
    assert_int_equal(imgtk_storage_create(&context, scratch_path(&scratch, "loop"), &storage, NULL), IMGTK_EIO);
}

static void someone_else_may_make_the_file_meanwhile(void **state)
{
    (void)state;
    struct imgtk_storage *storage = create_storage(scratch_path(&scratch, "new"));
    put(storage, "ours", 0);
    scratch_file(&scratch, "new", "theirs, which came between");
    assert_int_equal(imgtk_storage_commit(storage, false, NULL), 0);
    imgtk_storage_close(storage);
    assert_string_equal(scratch_read(&scratch, "new"), "ours");
    assert_int_equal(scratch_entries(&scratch, "."), 1);
}

static void a_long_name_fits_with_its_hidden_form(void **state)
{
    (void)state;
    char name[NAME_MAX + 1];
    memset(name, 'n', NAME_MAX);
    name[NAME_MAX] = '\0';
    create_and_commit(scratch_path(&scratch, name), "one");
    create_and_commit(scratch_path(&scratch, name), "two"); /* by way of a hidden name */
    assert_string_equal(scratch_read(&scratch, name), "two");
    assert_int_equal(scratch_entries(&scratch, "."), 1);
}

static void tells_what_cannot_be_created(void **state)
{
    (void)state;
    expect_not_created(scratch.root, IMGTK_EIO, "Is a directory");
    expect_not_created(scratch_path(&scratch, "none/new"), IMGTK_ENOTFOUND, "No such file or directory");
    expect_not_created(scratch_path(&scratch, "new/"), IMGTK_EIO, "Is a directory");
    expect_not_created("", IMGTK_ENOTFOUND, "No such file or directory");
    scratch_file(&scratch, "file", "");
    expect_not_created(scratch_path(&scratch, "file/new"), IMGTK_EIO, "Not a directory");
}

static void killed_at_any_moment_leaves_the_old_file(void **state)
{
    (void)state;
    scratch_folder(&scratch, "d");
    scratch_file(&scratch, "d/disk", "old");
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct imgtk_storage *storage;
            if (imgtk_storage_create(&context, scratch_path(&scratch, "d/disk"), &storage, NULL))
                _exit(1);
            for (uint64_t i = 0;; i++)
                (void)imgtk_storage_pwrite(storage, "x", 1, i % 1000, NULL);
        }
        usleep((useconds_t)(round * 200));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_string_equal(scratch_read(&scratch, "d/disk"), "old");
    }
    assert_int_equal(scratch_entries(&scratch, "d"), 1);
}

/* ---- A full disk -------------------------------------------------------------------- */

static void a_full_disk_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    scratch_folder(&scratch, "tiny");
    char tiny[PATH_MAX];
    snprintf(tiny, sizeof(tiny), "%s", scratch_path(&scratch, "tiny"));
    if (mount("none", tiny, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k") < 0) {
        print_message("skipped: cannot mount a small tmpfs: %s\n", strerror(errno));
        skip();
    }
    struct imgtk_storage *storage = create_storage(scratch_path(&scratch, "tiny/disk"));
    struct imgtk_error err = IMGTK_ERROR_INIT;
    char buf[BLOCK];
    memset(buf, 'x', sizeof(buf));
    int status = 0;
    for (uint64_t i = 0; i < 16 && status == 0; i++)
        status = imgtk_storage_pwrite(storage, buf, sizeof(buf), i * BLOCK, &err);
    int reserved = imgtk_storage_allocate(storage, 0, 1 << 20, NULL);
    imgtk_storage_close(storage);
    int entries = scratch_entries(&scratch, "tiny");
    assert_int_equal(umount(tiny), 0);
    assert_int_equal(status, IMGTK_ENOSPACE);
    assert_int_equal(err.os_errno, ENOSPC);
    assert_int_equal(reserved, IMGTK_ENOSPACE);
    assert_int_equal(entries, 0);
}

/* ---- Without O_TMPFILE --------------------------------------------------------------- */

/* In a folder without /proc a file without a name could never be given one. */
static int create_by_hidden_name(void)
{
    struct imgtk_storage *storage;
    if (chroot(scratch.root) < 0 || chdir("/") < 0 || imgtk_storage_create(&context, "d/new", &storage, NULL))
        return 1;
    memcpy(scratch.root, ".", 2);
    int while_open = scratch_entries(&scratch, "d");
    imgtk_storage_close(storage);
    int abandoned = scratch_entries(&scratch, "d");
    if (imgtk_storage_create(&context, "d/new", &storage, NULL) || imgtk_storage_pwrite(storage, "new", 3, 0, NULL) ||
        imgtk_storage_commit(storage, true, NULL))
        return 2;
    imgtk_storage_close(storage);
    return while_open == 1 && abandoned == 0 && scratch_entries(&scratch, "d") == 1 ? 0 : 3;
}

static void works_by_hidden_names_too(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: only root can change its root folder\n");
        skip();
    }
    scratch_folder(&scratch, "d");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(create_by_hidden_name());
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_string_equal(scratch_read(&scratch, "d/new"), "new");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(a_file_appears_when_committed),
        WITH_SCRATCH(an_abandoned_file_leaves_nothing),
        WITH_SCRATCH(replacing_keeps_mode_and_owner),
        WITH_SCRATCH(a_new_file_obeys_the_umask),
        WITH_SCRATCH(a_link_stays_and_its_target_is_replaced),
        WITH_SCRATCH(someone_else_may_make_the_file_meanwhile),
        WITH_SCRATCH(a_long_name_fits_with_its_hidden_form),
        WITH_SCRATCH(tells_what_cannot_be_created),
        WITH_SCRATCH(killed_at_any_moment_leaves_the_old_file),
        WITH_SCRATCH(a_full_disk_is_an_error_and_leaves_nothing),
        WITH_SCRATCH(works_by_hidden_names_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
