/* The storages that need no file: memory, and null. */
#include "storages.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(memory_grows_and_shrinks),
        WITH_SCRATCH(null_is_all_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
