/* Zeroing and reserving space, in files and on a block device. */
#include <errno.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "storages.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(zeroes_read_as_zeroes),
        WITH_SCRATCH(zeroing_frees_space_or_takes_it),
        WITH_SCRATCH(threads_grow_a_file_together),
        WITH_SCRATCH(writes_a_block_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
