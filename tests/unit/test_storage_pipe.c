/* Pipes and what is like them, which go one way. */
#include <pthread.h>

#include "storages.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(a_pipe_is_read_in_order),
        WITH_SCRATCH(a_short_pipe_ends),
        WITH_SCRATCH(a_pipe_is_written_in_order),
        WITH_SCRATCH(a_fifo_waits_for_its_writer),
        WITH_SCRATCH(a_fifo_without_other_end_is_given_up),
        WITH_SCRATCH(devices_are_pipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
