/* Files that are there: what they hold, where their holes are, and copies between them. */
#include <pthread.h>

#include "storages.h"

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
        expect_range(storage, 10 * BLOCK + 5, 1, IMGTK_RANGE_DATA, 1); /* past the end */
        expect_range(storage, 20 * BLOCK, 7, IMGTK_RANGE_DATA, 7);
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
        WITH_SCRATCH(copies_where_blocks_can_be_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
