/* How much of a file stays in the page cache after it was read or written. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "imgtk/image.h"
#include "one_module.h"
#include "scratch.h"
#include "storage/file.h"

#define PIECE (1u << 20)
#define PIECES 160u
#define BEHIND_BYTES ((uint64_t)FILE_BEHIND * PIECE)
/*
 * Of what is dropped, the kernel keeps pages that it is busy with at that moment: writes out, moves, or hands from one
 * CPU to another, in pieces of some MiB. And when others need memory, it takes pages.
 */
#define BUSY_BYTES (16u << 20)
#define TMPFS 0x01021994 /* is nothing but page cache */

static struct imgtk_context context;
static struct scratch scratch;

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

/* Bytes of the file that are in the page cache. */
static uint64_t cached(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    size_t pages = ((size_t)st.st_size + 4095) / 4096, count = 0;
    unsigned char *present = calloc(pages, 1);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED && mincore(map, (size_t)st.st_size, present) == 0);
    for (size_t i = 0; i < pages; i++)
        count += present[i] & 1;
    munmap(map, (size_t)st.st_size);
    free(present);
    close(fd);
    return count * 4096;
}

static void expect_kept(const char *path)
{
    assert_in_range(cached(path), (uint64_t)PIECES * PIECE - BUSY_BYTES, (uint64_t)PIECES * PIECE);
}

static void expect_at_most(const char *path, uint64_t bytes)
{
    assert_in_range(cached(path), 0, bytes + BUSY_BYTES);
}

static void skip_where_all_is_cache(void)
{
    struct statfs system;
    assert_int_equal(statfs(scratch_path(&scratch, ""), &system), 0);
    if (system.f_type == TMPFS)
        skip();
}

/* limit: bytes moved before pages are dropped; -1: as it comes. */
static void write_file(const char *path, int64_t limit, bool drop)
{
    struct imgtk_storage *storage;
    unsigned char *bytes = malloc(PIECE);
    memset(bytes, 7, PIECE);
    assert_int_equal(imgtk_storage_create(&context, path, &storage, NULL), 0);
    if (limit >= 0)
        ((struct file *)storage->handle)->behind.left = limit;
    if (drop)
        imgtk_storage_drop_cache(storage);
    for (uint64_t i = 0; i < PIECES; i++)
        assert_int_equal(imgtk_storage_pwrite(storage, bytes, PIECE, i * PIECE, NULL), 0);
    assert_int_equal(imgtk_storage_commit(storage, true, NULL), 0);
    imgtk_storage_close(storage);
    free(bytes);
}

static void what_is_written_stays(void **state)
{
    (void)state;
    const char *path = scratch_path(&scratch, "file");
    write_file(path, -1, false);
    expect_kept(path);
}

static void a_large_file_keeps_little(void **state)
{
    (void)state;
    skip_where_all_is_cache();
    const char *path = scratch_path(&scratch, "file");
    write_file(path, 16 * PIECE, false);
    expect_at_most(path, BEHIND_BYTES + 16 * PIECE);
    assert_true(cached(path) > 0);
}

static void on_request_nothing_stays(void **state)
{
    (void)state;
    skip_where_all_is_cache();
    const char *path = scratch_path(&scratch, "file");
    write_file(path, -1, true);
    expect_at_most(path, 0);
}

static void read_file(const char *path, bool drop)
{
    struct imgtk_storage *storage;
    unsigned char *bytes = malloc(PIECE);
    assert_int_equal(imgtk_storage_open(&context, path, 0, NULL, &storage, NULL), 0);
    if (drop)
        imgtk_storage_drop_cache(storage);
    for (uint64_t i = 0; i < PIECES; i++)
        assert_int_equal(imgtk_storage_pread(storage, bytes, PIECE, i * PIECE, NULL), 0);
    if (drop)
        expect_at_most(path, BEHIND_BYTES); /* and what the kernel reads ahead */
    imgtk_storage_close(storage);
    free(bytes);
}

static void what_is_read_goes_on_request(void **state)
{
    (void)state;
    skip_where_all_is_cache();
    const char *path = scratch_path(&scratch, "file");
    write_file(path, -1, true);
    read_file(path, false);
    expect_kept(path);
    read_file(path, true);
    expect_at_most(path, 0);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(what_is_written_stays),
        WITH_SCRATCH(a_large_file_keeps_little),
        WITH_SCRATCH(on_request_nothing_stays),
        WITH_SCRATCH(what_is_read_goes_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
