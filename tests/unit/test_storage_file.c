/* Files, and the storages that need no file: memory, null, pipes. */
#include <errno.h>
#include <linux/loop.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "context.h"
#include "imgtk/image.h"
#include "scratch.h"
#include "storage/storage.h"

static struct imgtk_context context;
static struct scratch scratch;

/* No modules here. */
int registry_storage_for(struct imgtk_context *unused, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err)
{
    (void)unused, (void)name, (void)err;
    *out = NULL;
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

static int set_up(void **state)
{
    (void)state;
    scratch_new(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_free(&scratch);
    return 0;
}

static struct imgtk_storage *open_storage(const char *name, uint32_t flags)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = imgtk_storage_open(&context, name, flags, NULL, &storage, &err);
    if (status)
        fail_msg("%s: %s", name, err.message);
    return storage;
}

static struct imgtk_storage *create_storage(const char *name)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_create(&context, name, &storage, &err))
        fail_msg("%s: %s", name, err.message);
    return storage;
}

static void put(struct imgtk_storage *storage, const char *text, uint64_t offset)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_pwrite(storage, text, strlen(text), offset, &err))
        fail_msg("write: %s", err.message);
}

static void expect_bytes(struct imgtk_storage *storage, uint64_t offset, const char *text)
{
    char buf[64];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_pread(storage, buf, strlen(text), offset, &err))
        fail_msg("read: %s", err.message);
    assert_memory_equal(buf, text, strlen(text));
}

static void expect_zeroes(struct imgtk_storage *storage, uint64_t offset, size_t length)
{
    unsigned char *buf = malloc(length);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_pread(storage, buf, length, offset, &err))
        fail_msg("read: %s", err.message);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(buf[i], 0);
    free(buf);
}

/* The flags that promise something; the others only advise. */
static uint32_t abilities(struct imgtk_storage *storage)
{
    return imgtk_storage_flags(storage) &
           (IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_SEQUENTIAL | IMGTK_STORAGE_READS_ZERO | IMGTK_STORAGE_FIXED_SIZE |
            IMGTK_STORAGE_HAS_EXTENTS);
}

static uint64_t size_of(struct imgtk_storage *storage)
{
    uint64_t size;
    assert_int_equal(imgtk_storage_size(storage, &size, NULL), 0);
    return size;
}

static void expect_range(struct imgtk_storage *storage, uint64_t offset, uint64_t length, enum imgtk_range_kind kind,
                         uint64_t expected)
{
    struct imgtk_range range;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_extent(storage, offset, length, &range, &err))
        fail_msg("extent: %s", err.message);
    assert_int_equal(range.kind, kind);
    assert_int_equal(range.length, expected);
}

/* ---- Reading -------------------------------------------------------------------- */

static void reads_a_file(void **state)
{
    (void)state;
    scratch_file(&scratch, "a", "0123456789");
    struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "a"), 0);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    char buf[16];
    size_t done;
    assert_string_equal(imgtk_storage_name(storage), scratch.path);
    assert_int_equal(abilities(storage), IMGTK_STORAGE_HAS_EXTENTS);
    assert_int_equal(size_of(storage), 10);
    expect_bytes(storage, 3, "3456789");
    assert_int_equal(imgtk_storage_pread_some(storage, buf, 16, 8, &done, &err), 0);
    assert_int_equal(done, 2);
    assert_int_equal(imgtk_storage_pread_some(storage, buf, 16, UINT64_MAX, &done, &err), 0);
    assert_int_equal(done, 0);
    assert_int_equal(imgtk_storage_pread(storage, buf, 4, 8, &err), IMGTK_ECORRUPT);
    assert_non_null(strstr(err.message, "ends at byte 10"));
    assert_int_equal(imgtk_storage_pread(storage, buf, 4, 4096, &err), IMGTK_ECORRUPT);
    assert_non_null(strstr(err.message, "ends at byte 10"));
    assert_int_equal(imgtk_storage_pwrite(storage, "x", 1, 0, &err), IMGTK_EINVAL);
    assert_int_equal(imgtk_storage_zero(storage, 0, 1, 0, &err), IMGTK_EINVAL);
    assert_int_equal(imgtk_storage_truncate(storage, 0, &err), IMGTK_EINVAL);
    imgtk_storage_close(storage);
    assert_string_equal(scratch_read(&scratch, "a"), "0123456789");
}

static void expect_refused(const char *name, int status, const char *text)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_open(&context, name, 0, NULL, &storage, &err), status);
    assert_null(storage);
    if (!strstr(err.message, text))
        fail_msg("'%s' lacks '%s'", err.message, text);
}

static void tells_what_cannot_be_opened(void **state)
{
    (void)state;
    char expected[PATH_MAX + 64];
    snprintf(expected, sizeof(expected), "Could not open '%s': No such file or directory", scratch_path(&scratch, "nx"));
    expect_refused(scratch.path, IMGTK_ENOTFOUND, expected);
    expect_refused(scratch.root, IMGTK_EIO, "Is a directory");
    expect_refused("nosuch://host/x", IMGTK_ENOTFOUND, "no installed module opens 'nosuch://' names");
    expect_refused("fd:", IMGTK_EINVAL, "not a file descriptor");
    expect_refused("fd:7x", IMGTK_EINVAL, "not a file descriptor");
    expect_refused("fd:-1", IMGTK_EINVAL, "not a file descriptor");
    expect_refused("fd:99999", IMGTK_EIO, "Bad file descriptor");
    expect_refused("null:much", IMGTK_EINVAL, "null:much");
}

static void a_colon_is_not_yet_a_scheme(void **state)
{
    (void)state;
    scratch_file(&scratch, "a:b", "colon");
    char cwd[PATH_MAX];
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(chdir(scratch.root), 0);
    const char *names[] = { "a:b", "./a:b", "file:a:b" };
    for (size_t i = 0; i < 3; i++) {
        struct imgtk_storage *storage = open_storage(names[i], 0);
        expect_bytes(storage, 0, "colon");
        imgtk_storage_close(storage);
    }
    assert_int_equal(chdir(cwd), 0);
}

static void reads_a_descriptor(void **state)
{
    (void)state;
    scratch_file(&scratch, "a", "0123456789");
    int fd = open(scratch_path(&scratch, "a"), O_RDONLY | O_CLOEXEC);
    char name[32];
    snprintf(name, sizeof(name), "fd:%d", fd);
    struct imgtk_storage *storage = open_storage(name, 0);
    expect_bytes(storage, 5, "56789");
    imgtk_storage_close(storage);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_open(&context, name, IMGTK_STORAGE_WRITABLE, NULL, &storage, &err), IMGTK_EINVAL);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* the caller's descriptor is still the caller's */
    close(fd);
}

/* ---- Extents --------------------------------------------------------------------- */

enum { BLOCK = 65536 };

/* data, hole, data, hole */
static void make_sparse(const char *name)
{
    int fd = open(scratch_path(&scratch, name), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    char buf[BLOCK];
    memset(buf, 'x', sizeof(buf));
    assert_int_equal(pwrite(fd, buf, BLOCK, 0), BLOCK);
    assert_int_equal(pwrite(fd, buf, BLOCK, 4 * BLOCK), BLOCK);
    assert_int_equal(ftruncate(fd, 10 * BLOCK + 5), 0);
    close(fd);
}

static bool file_system_has_holes(void)
{
    int fd = open(scratch_path(&scratch, "sparse"), O_RDONLY | O_CLOEXEC);
    bool has = lseek(fd, 0, SEEK_HOLE) == BLOCK;
    close(fd);
    return has;
}

static void tells_holes(void **state)
{
    (void)state;
    make_sparse("sparse");
    if (!file_system_has_holes()) {
        print_message("skipped: the file system of %s has no holes\n", scratch.root);
        skip();
    }
    for (int writable = 0; writable < 2; writable++) {
        struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "sparse"),
                                                     writable ? IMGTK_STORAGE_WRITABLE : 0);
        expect_range(storage, 0, 100 * BLOCK, IMGTK_RANGE_DATA, BLOCK);
        expect_range(storage, 0, 10, IMGTK_RANGE_DATA, 10);
        expect_range(storage, BLOCK, 100 * BLOCK, IMGTK_RANGE_ZERO, 3 * BLOCK);
        expect_range(storage, BLOCK + 7, 100 * BLOCK, IMGTK_RANGE_ZERO, 3 * BLOCK - 7);
        expect_range(storage, 4 * BLOCK + 1, 100 * BLOCK, IMGTK_RANGE_DATA, BLOCK - 1);
        expect_range(storage, 5 * BLOCK, 100 * BLOCK, IMGTK_RANGE_ZERO, 5 * BLOCK + 5);
        struct imgtk_range range;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        assert_int_equal(imgtk_storage_extent(storage, 10 * BLOCK + 5, 1, &range, &err), IMGTK_EINVAL);
        assert_int_equal(imgtk_storage_extent(storage, 0, 0, &range, &err), IMGTK_EINVAL);
        imgtk_storage_close(storage);
    }
}

static void a_written_file_tells_new_extents(void **state)
{
    (void)state;
    make_sparse("sparse");
    if (!file_system_has_holes()) {
        print_message("skipped: the file system of %s has no holes\n", scratch.root);
        skip();
    }
    struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "sparse"), IMGTK_STORAGE_WRITABLE);
    expect_range(storage, BLOCK, 100 * BLOCK, IMGTK_RANGE_ZERO, 3 * BLOCK);
    put(storage, "data", 2 * BLOCK);
    expect_range(storage, BLOCK, 100 * BLOCK, IMGTK_RANGE_ZERO, BLOCK);
    imgtk_storage_close(storage);
}

struct asker {
    struct imgtk_storage *storage;
    unsigned wrong;
};

static void *ask_extents(void *argument)
{
    struct asker *asker = argument;
    for (int round = 0; round < 50; round++)
        for (uint64_t block = 0; block < 10; block++) {
            struct imgtk_range range;
            bool data = block == 0 || block == 4;
            asker->wrong += imgtk_storage_extent(asker->storage, block * BLOCK, 512, &range, NULL) != 0 ||
                            range.kind != (data ? IMGTK_RANGE_DATA : IMGTK_RANGE_ZERO);
        }
    return NULL;
}

static void tells_extents_to_many_threads(void **state)
{
    (void)state;
    make_sparse("sparse");
    if (!file_system_has_holes()) {
        print_message("skipped: the file system of %s has no holes\n", scratch.root);
        skip();
    }
    struct asker asker[4];
    pthread_t threads[4];
    struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "sparse"), 0);
    for (int i = 0; i < 4; i++) {
        asker[i] = (struct asker){ .storage = storage };
        assert_int_equal(pthread_create(&threads[i], NULL, ask_extents, &asker[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(asker[i].wrong, 0);
    }
    imgtk_storage_close(storage);
}

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

static void create_and_commit(const char *path, const char *text)
{
    struct imgtk_storage *storage = create_storage(path);
    put(storage, text, 0);
    assert_int_equal(imgtk_storage_commit(storage, false, NULL), 0);
    imgtk_storage_close(storage);
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

static void expect_not_created(const char *path, int status, const char *text)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_create(&context, path, &storage, &err), status);
    assert_null(storage);
    if (!strstr(err.message, text))
        fail_msg("'%s' lacks '%s'", err.message, text);
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

/* ---- Zeroes and space ----------------------------------------------------------------- */

static void zeroes_read_as_zeroes(void **state)
{
    (void)state;
    static const uint32_t ways[] = { 0, IMGTK_ZERO_ALLOCATE };
    for (size_t i = 0; i < 2; i++) {
        make_sparse("f");
        struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "f"), IMGTK_STORAGE_WRITABLE);
        assert_int_equal(imgtk_storage_zero(storage, 100, BLOCK - 200, ways[i], NULL), 0);
        expect_bytes(storage, 99, "x");
        expect_zeroes(storage, 100, BLOCK - 200);
        expect_bytes(storage, BLOCK - 100, "xx");
        assert_int_equal(size_of(storage), 10 * BLOCK + 5);
        assert_int_equal(imgtk_storage_zero(storage, 4 * BLOCK + 1, 20 * BLOCK, ways[i], NULL), 0); /* grows */
        assert_int_equal(size_of(storage), 24 * BLOCK + 1);
        expect_bytes(storage, 4 * BLOCK, "x");
        expect_zeroes(storage, 4 * BLOCK + 1, 20 * BLOCK);
        assert_int_equal(imgtk_storage_zero(storage, 30 * BLOCK, 1, ways[i], NULL), 0); /* beyond the end */
        assert_int_equal(size_of(storage), 30 * BLOCK + 1);
        expect_zeroes(storage, 24 * BLOCK, 6 * BLOCK + 1);
        assert_int_equal(imgtk_storage_zero(storage, 40 * BLOCK, 0, ways[i], NULL), 0);
        assert_int_equal(size_of(storage), 30 * BLOCK + 1);
        assert_int_equal(imgtk_storage_zero(storage, INT64_MAX, 2, ways[i], NULL), IMGTK_EINVAL);
        imgtk_storage_close(storage);
        assert_int_equal(unlink(scratch_path(&scratch, "f")), 0);
    }
}

static void zeroing_frees_space_or_takes_it(void **state)
{
    (void)state;
    make_sparse("f");
    struct imgtk_storage *storage = open_storage(scratch_path(&scratch, "f"), IMGTK_STORAGE_WRITABLE);
    uint64_t before, after;
    assert_int_equal(imgtk_storage_allocated(storage, &before, NULL), 0);
    assert_int_equal(imgtk_storage_zero(storage, 0, BLOCK, IMGTK_ZERO_ALLOCATE, NULL), 0);
    assert_int_equal(imgtk_storage_allocated(storage, &after, NULL), 0);
    assert_true(after >= before);
    int fd = storage->ops.fd(storage->handle);
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 9 * BLOCK, BLOCK) == 0) {
        assert_int_equal(imgtk_storage_zero(storage, 0, BLOCK, 0, NULL), 0);
        assert_int_equal(imgtk_storage_allocated(storage, &after, NULL), 0);
        assert_true(after <= before - BLOCK);
    } else {
        print_message("not tested: the file system of %s cannot punch holes\n", scratch.root);
    }
    int status = imgtk_storage_allocate(storage, 5 * BLOCK, 20 * BLOCK, NULL);
    if (status != IMGTK_EUNSUPPORTED) {
        assert_int_equal(status, 0);
        assert_int_equal(imgtk_storage_allocated(storage, &after, NULL), 0);
        assert_true(after >= 20 * BLOCK);
        assert_int_equal(size_of(storage), 25 * BLOCK);
    }
    imgtk_storage_close(storage);
}

struct grower {
    struct imgtk_storage *storage;
    uint64_t first;
    bool zero;
    int status;
};

static void *grow_file(void *argument)
{
    struct grower *grower = argument;
    char buf[4096];
    memset(buf, 'w', sizeof(buf));
    for (uint64_t i = grower->first; i < 400 && grower->status == 0; i += 4)
        grower->status = grower->zero ? imgtk_storage_zero(grower->storage, i * 4096, 4096, 0, NULL)
                                      : imgtk_storage_pwrite(grower->storage, buf, 4096, i * 4096, NULL);
    return NULL;
}

/* Growing for zeroes must not cut off what another thread has just written beyond. */
static void threads_grow_a_file_together(void **state)
{
    (void)state;
    struct imgtk_storage *storage = create_storage(scratch_path(&scratch, "f"));
    struct grower growers[4];
    pthread_t threads[4];
    for (uint64_t i = 0; i < 4; i++) {
        growers[i] = (struct grower){ .storage = storage, .first = i, .zero = i % 2 };
        assert_int_equal(pthread_create(&threads[i], NULL, grow_file, &growers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(growers[i].status, 0);
    }
    for (uint64_t i = 0; i < 400; i++) {
        if (i % 2)
            expect_zeroes(storage, i * 4096, 4096);
        else
            expect_bytes(storage, i * 4096, "wwww");
    }
    assert_int_equal(size_of(storage), 400 * 4096);
    imgtk_storage_close(storage);
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

/* ---- Block devices --------------------------------------------------------------------- */

enum { DEVICE_SIZE = 1 << 20 };

/* A loop device over a file of 'x', which goes away when it is closed; -1: not here. */
static int make_device(char path[64])
{
    int file = open(scratch_path(&scratch, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char buf[4096];
    memset(buf, 'x', sizeof(buf));
    for (off_t at = 0; at < DEVICE_SIZE; at += (off_t)sizeof(buf))
        assert_int_equal(pwrite(file, buf, sizeof(buf), at), sizeof(buf));
    int device = -1;
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 20 && control >= 0 && device < 0; i++) { /* another program may be quicker */
        struct loop_config config = { .fd = (unsigned)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
        snprintf(path, 64, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
        device = open(path, O_RDWR | O_CLOEXEC);
        if (device >= 0 && ioctl(device, LOOP_CONFIGURE, &config) < 0) {
            close(device);
            device = -1;
        }
    }
    if (control >= 0)
        close(control);
    close(file);
    return device;
}

static void writes_a_block_device(void **state)
{
    (void)state;
    char path[64];
    int device = make_device(path);
    if (device < 0) {
        print_message("skipped: cannot make a loop device: %s\n", strerror(errno));
        skip();
    }
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage *storage = open_storage(path, IMGTK_STORAGE_WRITABLE);
    assert_int_equal(abilities(storage), IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_FIXED_SIZE);
    assert_int_equal(size_of(storage), DEVICE_SIZE);
    expect_range(storage, 0, DEVICE_SIZE, IMGTK_RANGE_DATA, DEVICE_SIZE);
    for (uint32_t flags = 0; flags <= IMGTK_ZERO_ALLOCATE; flags++) {
        uint64_t at = flags ? 512 * 1024 : 0;
        assert_int_equal(imgtk_storage_zero(storage, at + 100, 100000, flags, NULL), 0);
        expect_bytes(storage, at + 99, "x");
        expect_zeroes(storage, at + 100, 100000);
        expect_bytes(storage, at + 100100, "xx");
        assert_int_equal(imgtk_storage_zero(storage, at + 200000, 10, flags, NULL), 0);
        expect_bytes(storage, at + 199999, "x");
        expect_zeroes(storage, at + 200000, 10);
        expect_bytes(storage, at + 200010, "x");
    }
    put(storage, "end", DEVICE_SIZE - 3);
    assert_int_equal(imgtk_storage_pwrite(storage, "beyond", 6, DEVICE_SIZE - 3, &err), IMGTK_ENOSPACE);
    assert_int_equal(imgtk_storage_zero(storage, DEVICE_SIZE - 3, 4, 0, &err), IMGTK_ENOSPACE);
    assert_int_equal(imgtk_storage_truncate(storage, DEVICE_SIZE + 1, &err), IMGTK_ENOSPACE);
    assert_int_equal(imgtk_storage_truncate(storage, 1, &err), IMGTK_EUNSUPPORTED);
    assert_int_equal(imgtk_storage_allocate(storage, 0, 1, &err), IMGTK_EUNSUPPORTED);
    assert_int_equal(imgtk_storage_commit(storage, true, NULL), 0);
    imgtk_storage_close(storage);
    expect_not_created(path, IMGTK_EINVAL, "-n");
    close(device);
}

/* ---- Copies that move nothing --------------------------------------------------------------- */

static void copies_where_blocks_can_be_shared(void **state)
{
    (void)state;
    make_sparse("from");
    struct imgtk_storage *from = open_storage(scratch_path(&scratch, "from"), 0);
    struct imgtk_storage *to = create_storage(scratch_path(&scratch, "to"));
    uint64_t done;
    assert_int_equal(imgtk_storage_copy(from, 4 * BLOCK, to, BLOCK, BLOCK, &done, NULL), 0);
    assert_true(done == 0 || done == BLOCK);
    if (done) {
        expect_zeroes(to, 0, BLOCK);
        expect_bytes(to, BLOCK, "xxxx");
    }
    assert_int_equal(imgtk_storage_copy(from, 4 * BLOCK, to, 2 * BLOCK, 4096, &done, NULL), 0);
    assert_true(done == 0 || done == 4096);
    assert_int_equal(imgtk_storage_copy(from, 20 * BLOCK, to, 0, 4096, &done, NULL), 0);
    assert_int_equal(done, 0); /* beyond the end */
    assert_int_equal(imgtk_storage_copy(from, 10 * BLOCK, to, 0, 4096, &done, NULL), 0);
    assert_true(done <= 5); /* ends early */
    assert_int_equal(imgtk_storage_copy(from, 0, from, BLOCK, 4096, &done, NULL), IMGTK_EINVAL); /* read-only */
    assert_int_equal(imgtk_storage_copy(from, INT64_MAX, to, 0, 4096, &done, NULL), IMGTK_EINVAL);
    struct imgtk_storage *memory;
    assert_int_equal(imgtk_storage_from_memory("abc", 3, &memory, NULL), 0);
    assert_int_equal(imgtk_storage_copy(memory, 0, to, 0, 3, &done, NULL), 0);
    assert_int_equal(done, 0);
    imgtk_storage_close(memory);
    imgtk_storage_close(to);
    imgtk_storage_close(from);
}

/* ---- Memory and null ----------------------------------------------------------------------- */

static void memory_grows_and_shrinks(void **state)
{
    (void)state;
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_from_memory("0123456789", 10, &storage, NULL), 0);
    expect_bytes(storage, 5, "56789");
    put(storage, "beyond", 5000);
    assert_int_equal(size_of(storage), 5006);
    expect_zeroes(storage, 10, 4990);
    expect_bytes(storage, 5000, "beyond");
    assert_int_equal(imgtk_storage_truncate(storage, 5, NULL), 0);
    assert_int_equal(imgtk_storage_truncate(storage, 20, NULL), 0);
    expect_zeroes(storage, 5, 15);
    assert_int_equal(imgtk_storage_zero(storage, 1, 2, 0, NULL), 0);
    expect_bytes(storage, 3, "34");
    expect_zeroes(storage, 1, 2);
    expect_range(storage, 0, 20, IMGTK_RANGE_DATA, 20);
    assert_int_equal(imgtk_storage_pwrite(storage, "x", 1, (uint64_t)1 << 40, &err), IMGTK_ELIMIT);
    assert_int_equal(imgtk_storage_allocate(storage, 0, 10, &err), IMGTK_EUNSUPPORTED);
    assert_int_equal(imgtk_storage_commit(storage, true, NULL), 0);
    imgtk_storage_close(storage);
    assert_int_equal(imgtk_storage_from_memory(NULL, 0, &storage, NULL), 0);
    assert_int_equal(abilities(storage), IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_READS_ZERO);
    imgtk_storage_close(storage);
}

static void null_is_all_zeroes(void **state)
{
    (void)state;
    struct imgtk_storage *storage = open_storage("null:1M", 0);
    assert_int_equal(size_of(storage), 1 << 20);
    expect_zeroes(storage, 12345, 1000);
    expect_range(storage, 0, 1 << 20, IMGTK_RANGE_ZERO, 1 << 20);
    put(storage, "swallowed", 1 << 20);
    assert_int_equal(size_of(storage), (1 << 20) + 9);
    expect_zeroes(storage, 1 << 20, 9);
    imgtk_storage_close(storage);
    storage = create_storage("null:");
    assert_int_equal(size_of(storage), 0);
    imgtk_storage_close(storage);
}

/* ---- Pipes ------------------------------------------------------------------------------------ */

static struct imgtk_storage *open_end(int fd, uint32_t flags)
{
    char name[32];
    snprintf(name, sizeof(name), "fd:%d", fd);
    struct imgtk_storage *storage = open_storage(name, flags);
    close(fd);
    return storage;
}

enum { PIPED = 300000 };

static void *write_all(void *argument)
{
    int fd = *(int *)argument;
    for (int i = 0; i < PIPED; i += 1000) {
        unsigned char buf[1000];
        for (int j = 0; j < 1000; j++)
            buf[j] = (unsigned char)((i + j) / 7);
        if (write(fd, buf, sizeof(buf)) != sizeof(buf))
            break;
    }
    close(fd);
    return NULL;
}

static void expect_piped(struct imgtk_storage *storage, uint64_t offset, size_t length)
{
    unsigned char *buf = malloc(length);
    assert_int_equal(imgtk_storage_pread(storage, buf, length, offset, NULL), 0);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(buf[i], (unsigned char)((offset + i) / 7));
    free(buf);
}

static void a_pipe_is_read_in_order(void **state)
{
    (void)state;
    int ends[2];
    pthread_t thread;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&thread, NULL, write_all, &ends[1]), 0);
    struct imgtk_storage *storage = open_end(ends[0], 0);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t size;
    assert_int_equal(abilities(storage), IMGTK_STORAGE_SEQUENTIAL);
    assert_int_equal(imgtk_storage_size(storage, &size, &err), IMGTK_EUNSUPPORTED);
    expect_piped(storage, 0, 4096);
    expect_piped(storage, 0, 100000); /* the head is read again, and the stream goes on behind it */
    expect_piped(storage, 100000, 50000);
    expect_piped(storage, 200000, 10);
    char buf[16];
    assert_int_equal(imgtk_storage_pread(storage, buf, 16, 150000, &err), IMGTK_EUNSUPPORTED);
    expect_piped(storage, 60000, 5000);
    size_t done;
    assert_int_equal(imgtk_storage_pread_some(storage, buf, 16, PIPED - 4, &done, NULL), 0);
    assert_int_equal(done, 4);
    assert_int_equal(imgtk_storage_pread_some(storage, buf, 16, PIPED, &done, NULL), 0);
    assert_int_equal(done, 0);
    imgtk_storage_close(storage);
    pthread_join(thread, NULL);
}

static void a_short_pipe_ends(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    close(ends[1]);
    struct imgtk_storage *storage = open_end(ends[0], 0);
    char buf[16];
    size_t done;
    assert_int_equal(imgtk_storage_pread_some(storage, buf, 16, 0, &done, NULL), 0);
    assert_int_equal(done, 3);
    assert_int_equal(imgtk_storage_pread(storage, buf, 16, 1, NULL), IMGTK_ECORRUPT);
    imgtk_storage_close(storage);
}

static void a_pipe_is_written_in_order(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct imgtk_storage *storage = open_end(ends[1], IMGTK_STORAGE_WRITABLE);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    put(storage, "ab", 0);
    put(storage, "cd", 4);
    assert_int_equal(imgtk_storage_pwrite(storage, "x", 1, 3, &err), IMGTK_EUNSUPPORTED);
    assert_int_equal(imgtk_storage_zero(storage, 6, 2, 0, NULL), 0);
    assert_int_equal(imgtk_storage_truncate(storage, 10, NULL), 0);
    assert_int_equal(imgtk_storage_truncate(storage, 9, &err), IMGTK_EUNSUPPORTED);
    assert_int_equal(imgtk_storage_commit(storage, true, NULL), 0);
    imgtk_storage_close(storage);
    char buf[16];
    assert_int_equal(read(ends[0], buf, sizeof(buf)), 10);
    assert_memory_equal(buf, "ab\0\0cd\0\0\0\0", 10);
    close(ends[0]);
}

static void *open_writer(void *argument)
{
    usleep(50000);
    int fd = open(argument, O_WRONLY | O_CLOEXEC);
    usleep(50000); /* there, and slow */
    (void)!write(fd, "late", 4);
    close(fd);
    return NULL;
}

static void a_fifo_waits_for_its_writer(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(scratch_path(&scratch, "fifo"), 0600), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_writer, scratch.path), 0);
    struct imgtk_storage *storage = open_storage(scratch.path, 0);
    expect_bytes(storage, 0, "late");
    expect_bytes(storage, 2, "te");
    imgtk_storage_close(storage);
    pthread_join(thread, NULL);
}

static void a_fifo_without_other_end_is_given_up(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(scratch_path(&scratch, "fifo"), 0600), 0);
    expect_refused(scratch.path, IMGTK_EIO, "nobody writes");
    expect_not_created(scratch.path, IMGTK_EIO, "nobody reads");
}

static void devices_are_pipes(void **state)
{
    (void)state;
    struct imgtk_storage *storage = open_storage("/dev/zero", 0);
    assert_int_equal(abilities(storage), IMGTK_STORAGE_SEQUENTIAL);
    expect_zeroes(storage, 0, 100000);
    imgtk_storage_close(storage);
    create_and_commit("/dev/null", "nothing");
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(reads_a_file),
        WITH_SCRATCH(tells_what_cannot_be_opened),
        WITH_SCRATCH(a_colon_is_not_yet_a_scheme),
        WITH_SCRATCH(reads_a_descriptor),
        WITH_SCRATCH(tells_holes),
        WITH_SCRATCH(a_written_file_tells_new_extents),
        WITH_SCRATCH(tells_extents_to_many_threads),
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
        WITH_SCRATCH(zeroes_read_as_zeroes),
        WITH_SCRATCH(zeroing_frees_space_or_takes_it),
        WITH_SCRATCH(threads_grow_a_file_together),
        WITH_SCRATCH(works_by_hidden_names_too),
        WITH_SCRATCH(writes_a_block_device),
        WITH_SCRATCH(copies_where_blocks_can_be_shared),
        WITH_SCRATCH(memory_grows_and_shrinks),
        WITH_SCRATCH(null_is_all_zeroes),
        WITH_SCRATCH(a_pipe_is_read_in_order),
        WITH_SCRATCH(a_short_pipe_ends),
        WITH_SCRATCH(a_pipe_is_written_in_order),
        WITH_SCRATCH(a_fifo_waits_for_its_writer),
        WITH_SCRATCH(a_fifo_without_other_end_is_given_up),
        WITH_SCRATCH(devices_are_pipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
