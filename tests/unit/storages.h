/* Storages of each kind, opened and made in a folder of the test's own, and what they are expected to answer. */
#ifndef IMGTK_TEST_STORAGES_H
#define IMGTK_TEST_STORAGES_H

#include "imgtk/image.h"
#include "one_module.h"
#include "scratch.h"
#include "storage/storage.h"

static struct imgtk_context context;
static struct scratch scratch;

static inline int set_up(void **state)
{
    (void)state;
    scratch_new(&scratch);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    scratch_free(&scratch);
    return 0;
}

static inline struct imgtk_storage *open_storage(const char *name, uint32_t flags)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = imgtk_storage_open(&context, name, flags, NULL, &storage, &err);
    if (status)
        fail_msg("%s: %s", name, err.message);
    return storage;
}

static inline struct imgtk_storage *create_storage(const char *name)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_create(&context, name, &storage, &err))
        fail_msg("%s: %s", name, err.message);
    return storage;
}

static inline void put(struct imgtk_storage *storage, const char *text, uint64_t offset)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_pwrite(storage, text, strlen(text), offset, &err))
        fail_msg("write: %s", err.message);
}

static inline void create_and_commit(const char *path, const char *text)
{
    struct imgtk_storage *storage = create_storage(path);
    put(storage, text, 0);
    assert_int_equal(imgtk_storage_commit(storage, false, NULL), 0);
    imgtk_storage_close(storage);
}

static inline void expect_bytes(struct imgtk_storage *storage, uint64_t offset, const char *text)
{
    char buf[64];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_pread(storage, buf, strlen(text), offset, &err))
        fail_msg("read: %s", err.message);
    assert_memory_equal(buf, text, strlen(text));
}

static inline void expect_zeroes(struct imgtk_storage *storage, uint64_t offset, size_t length)
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
static inline uint32_t abilities(struct imgtk_storage *storage)
{
    return imgtk_storage_flags(storage) &
           (IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_SEQUENTIAL | IMGTK_STORAGE_READS_ZERO | IMGTK_STORAGE_FIXED_SIZE |
            IMGTK_STORAGE_HAS_EXTENTS);
}

static inline uint64_t size_of(struct imgtk_storage *storage)
{
    uint64_t size;
    assert_int_equal(imgtk_storage_size(storage, &size, NULL), 0);
    return size;
}

static inline void expect_range(struct imgtk_storage *storage, uint64_t offset, uint64_t length, enum imgtk_range_kind kind,
                         uint64_t expected)
{
    struct imgtk_range range;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_storage_extent(storage, offset, length, &range, &err))
        fail_msg("extent: %s", err.message);
    assert_int_equal(range.kind, kind);
    assert_int_equal(range.length, expected);
}

static inline void expect_refused(const char *name, int status, const char *text)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_open(&context, name, 0, NULL, &storage, &err), status);
    assert_null(storage);
    if (!strstr(err.message, text))
        fail_msg("'%s' lacks '%s'", err.message, text);
}

static inline void expect_not_created(const char *path, int status, const char *text)
{
    struct imgtk_storage *storage;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_create(&context, path, &storage, &err), status);
    assert_null(storage);
    if (!strstr(err.message, text))
        fail_msg("'%s' lacks '%s'", err.message, text);
}

enum { BLOCK = 65536 };

/* data, hole, data, hole */
static inline void make_sparse(const char *name)
{
    int fd = open(scratch_path(&scratch, name), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    char buf[BLOCK];
    memset(buf, 'x', sizeof(buf));
    assert_int_equal(pwrite(fd, buf, BLOCK, 0), BLOCK);
    assert_int_equal(pwrite(fd, buf, BLOCK, 4 * BLOCK), BLOCK);
    assert_int_equal(ftruncate(fd, 10 * BLOCK + 5), 0);
    close(fd);
}

static inline bool file_system_has_holes(void)
{
    int fd = open(scratch_path(&scratch, "sparse"), O_RDONLY | O_CLOEXEC);
    bool has = lseek(fd, 0, SEEK_HOLE) == BLOCK;
    close(fd);
    return has;
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
