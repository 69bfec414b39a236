/* A repair that is cut off: after any number of its writes, the image is no worse than it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "losing_disk.h"

static void damage_counts(struct disk *disk)
{
    set_refcount(disk, DATA + 1, 0);
    set_refcount(disk, DATA + 2, 3);
    set_refcount(disk, L2, 0);
}

static void damage_flags(struct disk *disk)
{
    set_entry(disk, 2, (DATA + 2) * CLUSTER);
    set_entry(disk, 3, ((DATA + 4) * CLUSTER) | QCOW2_COPIED); /* shared with guest cluster 4; DATA + 3 leaks */
    disk->bytes[QCOW2_AT_INCOMPATIBLE + 7] = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
}

static void damage_block(struct disk *disk)
{
    damage_counts(disk);
    imgtk_put_be64(disk->bytes + REFCOUNTS * CLUSTER, 0);
}

/* All counts are right, and yet new tables are needed. */
static void damage_far_block(struct disk *disk)
{
    imgtk_put_be64(disk->bytes + REFCOUNTS * CLUSTER + 8, 0x123456);
}

static void damage_table(struct disk *disk)
{
    damage_flags(disk);
    imgtk_put_be64(disk->bytes + QCOW2_AT_REFCOUNT_TABLE_OFFSET, 1024 * CLUSTER);
}

/* ---- Running the driver ------------------------------------------------------- */

static void silent(void *context, const char *message)
{
    (void)context, (void)message;
}

struct state {
    struct imgtk_check check;
    uint8_t content[GUEST * CLUSTER];
};

/* Checks, with repair when asked, and reads all. */
static void run(struct disk *disk, uint32_t repair, struct state *out)
{
    const struct imgtk_driver *driver = imgtk_driver_v1();
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage *storage = NULL;
    void *handle = NULL;
    assert_int_equal(disk_wrap(disk, &storage, &err), 0);
    struct imgtk_open args = { .file = storage, .flags = IMGTK_OPEN_WRITABLE | IMGTK_OPEN_CHECK };
    assert_int_equal(driver->open(&args, &handle, &err), 0);
    out->check = (struct imgtk_check){ .repair = repair, .workers = 1, .report = silent };
    assert_int_equal(driver->check(handle, &out->check, &err), 0);
    assert_int_equal(driver->read(handle, out->content, sizeof(out->content), 0, &err), 0);
    driver->close(handle);
    imgtk_storage_close(storage);
}

/* ---- What would lose data ------------------------------------------------------- */

static uint64_t get(const struct disk *disk, uint64_t offset)
{
    return imgtk_range_fits(offset, 8, disk->size) ? imgtk_be64(disk->bytes + offset) : 0;
}

static unsigned refcount(const struct disk *disk, uint64_t cluster)
{
    uint64_t block = get(disk, imgtk_be64(disk->bytes + QCOW2_AT_REFCOUNT_TABLE_OFFSET));
    return block ? imgtk_be16(disk->bytes + block + 2 * cluster) : 0;
}

static unsigned references(const struct disk *disk, uint64_t cluster)
{
    unsigned count = cluster < DATA;
    for (unsigned i = 0; i < GUEST; i++)
        count += (get(disk, L2 * CLUSTER + 8 * i) & QCOW2_OFFSET_MASK) == cluster * CLUSTER;
    return count;
}

/* Clusters that count as less used than they are, and shared ones that would be written in place. */
static unsigned dangers(const struct disk *disk)
{
    unsigned count = 0;
    for (unsigned i = DATA; i < CLUSTERS; i++)
        count += refcount(disk, i) < references(disk, i);
    for (unsigned i = 0; i < GUEST; i++) {
        uint64_t entry = get(disk, L2 * CLUSTER + 8 * i);
        count += (entry & QCOW2_COPIED) && references(disk, (entry & QCOW2_OFFSET_MASK) / CLUSTER) > 1;
    }
    return count;
}

static void assert_no_worse(const struct disk *damaged, unsigned allowed, unsigned lost, unsigned *writes, unsigned *flushed)
{
    struct disk *disk = malloc(sizeof(*disk));
    struct state before, after, *ignored = malloc(sizeof(*ignored));
    assert_non_null(disk);
    assert_non_null(ignored);
    *disk = *damaged;
    run(disk, 0, &before);
    disk->allowed = allowed;
    disk->lost = lost;
    run(disk, IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS, ignored);
    *writes = disk->writes;
    *flushed = disk->flushed;
    disk->allowed = UINT32_MAX;
    disk->lost = 0;
    run(disk, 0, &after);
    assert_memory_equal(before.content, after.content, sizeof(before.content));
    assert_true(dangers(disk) <= dangers(damaged));
    /* And what was cut off can be done again. */
    run(disk, IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS, ignored);
    run(disk, 0, &after);
    assert_memory_equal(before.content, after.content, sizeof(before.content));
    assert_int_equal(after.check.corruptions, 0);
    assert_int_equal(after.check.leaks, 0);
    assert_int_equal(disk->bytes[QCOW2_AT_INCOMPATIBLE + 7], 0);
    free(ignored);
    free(disk);
}

/* How many writes are on disk for certain when the last of `allowed` is made. */
static unsigned safe_writes(const struct disk *damaged, unsigned allowed)
{
    struct disk *disk = malloc(sizeof(*disk));
    struct state *ignored = malloc(sizeof(*ignored));
    assert_non_null(disk);
    assert_non_null(ignored);
    *disk = *damaged;
    disk->allowed = allowed;
    run(disk, IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS, ignored);
    unsigned safe = disk->safe;
    free(ignored);
    free(disk);
    return safe;
}

static void cut_everywhere(void (*damage)(struct disk *))
{
    struct disk *damaged = malloc(sizeof(*damaged));
    assert_non_null(damaged);
    make_image(damaged);
    damage(damaged);
    unsigned total, flushed, ignored;
    assert_no_worse(damaged, UINT32_MAX, 0, &total, &flushed);
    assert_true(total > 0);
    assert_true(flushed == total || flushed == total - 1); /* what is cut off at the end of the file may stay */
    for (unsigned allowed = 0; allowed <= total; allowed++) {
        assert_no_worse(damaged, allowed, 0, &ignored, &ignored);
        /* Writes reach the disk in any order until they are flushed: the last may, and one before it not. */
        for (unsigned lost = safe_writes(damaged, allowed) + 1; lost < allowed; lost++)
            assert_no_worse(damaged, allowed, lost, &ignored, &ignored);
    }
    free(damaged);
}

static void counts_in_place(void **state)
{
    (void)state;
    cut_everywhere(damage_counts);
}

static void flags_in_place(void **state)
{
    (void)state;
    cut_everywhere(damage_flags);
}

static void a_new_block(void **state)
{
    (void)state;
    cut_everywhere(damage_block);
}

static void a_new_table_for_sound_counts(void **state)
{
    (void)state;
    cut_everywhere(damage_far_block);
}

static void a_new_table(void **state)
{
    (void)state;
    cut_everywhere(damage_table);
}

static void the_sound_image_is_left_alone(void **state)
{
    (void)state;
    struct disk *disk = malloc(sizeof(*disk)), *before = malloc(sizeof(*before));
    struct state *result = malloc(sizeof(*result));
    assert_non_null(disk);
    assert_non_null(before);
    assert_non_null(result);
    make_image(disk);
    *before = *disk;
    run(disk, IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS, result);
    assert_int_equal(disk->writes, 0);
    assert_int_equal(result->check.corruptions + result->check.leaks, 0);
    assert_int_equal(result->check.allocated_clusters, GUEST);
    assert_int_equal(result->check.image_end_offset, CLUSTERS * CLUSTER);
    assert_memory_equal(disk->bytes, before->bytes, MAX_FILE);
    free(result);
    free(before);
    free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sound_image_is_left_alone),
        cmocka_unit_test(counts_in_place),
        cmocka_unit_test(flags_in_place),
        cmocka_unit_test(a_new_block),
        cmocka_unit_test(a_new_table),
        cmocka_unit_test(a_new_table_for_sound_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
