/*
 * A change in place that is cut off: after any number of its writes, also where they reached the disk in another order,
 * the image is the old one or the new one, and check finds nothing at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "losing_disk.h"

/* ---- Running the driver ------------------------------------------------------- */

typedef int (*change_fn)(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err);

struct open_disk {
    struct imgtk_storage *storage;
    void *handle;
};

static struct open_disk open_disk(struct disk *disk)
{
    struct open_disk opened = { NULL, NULL };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(disk_wrap(disk, &opened.storage, &err), 0);
    struct imgtk_open args = { .file = opened.storage, .flags = IMGTK_OPEN_WRITABLE };
    assert_int_equal(imgtk_driver_v1()->open(&args, &opened.handle, &err), 0);
    return opened;
}

static void close_disk(struct open_disk *opened)
{
    imgtk_driver_v1()->close(opened->handle);
    imgtk_storage_close(opened->storage);
}

/* The process never learns of the power cut: it sees all that it has written. */
static int run(struct disk *disk, change_fn change)
{
    const struct imgtk_driver *driver = imgtk_driver_v1();
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_edit edit = { .same_disk = false };
    struct open_disk opened = open_disk(disk);
    int status = driver->edit_begin(opened.handle, &edit, &err);
    assert_true(status != 0 || edit.unit == CLUSTER);
    if (status == 0)
        status = change(driver, opened.handle, &err);
    if (status == 0)
        status = driver->edit_commit(opened.handle, &err);
    close_disk(&opened);
    return status;
}

/* What an image is to its user. */
struct state {
    uint64_t size;
    uint8_t content[4 * GUEST * CLUSTER];
    uint32_t snapshots;
};

static void silent(void *context, const char *message)
{
    (void)context, (void)message;
}

static void look(struct disk *disk, struct state *out)
{
    const struct imgtk_driver *driver = imgtk_driver_v1();
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_check check = { .workers = 1, .report = silent };
    struct open_disk opened = open_disk(disk);
    memset(out, 0, sizeof(*out));
    out->size = driver->size(opened.handle);
    size_t length = (size_t)imgtk_min_u64(out->size, sizeof(out->content));
    assert_int_equal(driver->read(opened.handle, out->content, length, 0, &err), 0);
    out->snapshots = imgtk_be32(disk->bytes + QCOW2_AT_SNAPSHOT_COUNT);
    assert_int_equal(driver->check(opened.handle, &check, &err), 0);
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    close_disk(&opened);
}

/* ---- Cutting ------------------------------------------------------------------- */

struct cut {
    struct disk start, disk;
    struct state before, after, now;
    change_fn change;
};

static void run_cut(struct cut *cut, unsigned allowed, unsigned lost)
{
    cut->disk = cut->start;
    cut->disk.writes = cut->disk.flushed = cut->disk.safe = 0;
    cut->disk.allowed = allowed;
    cut->disk.lost = lost;
    assert_int_equal(run(&cut->disk, cut->change), 0);
    cut->disk.allowed = UINT32_MAX;
    cut->disk.lost = 0;
    look(&cut->disk, &cut->now);
}

static void assert_old_or_new(const struct cut *cut)
{
    assert_true(memcmp(&cut->now, &cut->before, sizeof(cut->now)) == 0 ||
                memcmp(&cut->now, &cut->after, sizeof(cut->now)) == 0);
}

static void cut_everywhere(const struct disk *start, change_fn change, struct disk *changed)
{
    struct cut *cut = malloc(sizeof(*cut));
    assert_non_null(cut);
    cut->start = *start;
    cut->change = change;
    look(&cut->start, &cut->before);
    run_cut(cut, UINT32_MAX, 0);
    cut->after = cut->now;
    *changed = cut->disk;
    unsigned total = cut->disk.writes;
    assert_true(total > 1);
    for (unsigned allowed = 0; allowed <= total; allowed++) {
        run_cut(cut, allowed, 0);
        assert_old_or_new(cut);
        unsigned safe = cut->disk.safe;
        for (unsigned lost = safe + 1; lost < allowed; lost++) {
            run_cut(cut, allowed, lost);
            assert_old_or_new(cut);
        }
    }
    free(cut);
}

/* ---- Changes --------------------------------------------------------------------- */

static int create_snapshot(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    struct imgtk_snapshot_change change = { .action = IMGTK_SNAPSHOT_CREATE, .name = "s" };
    return driver->edit_snapshot(handle, &change, err);
}

static int apply_snapshot(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    struct imgtk_snapshot_change change = { .action = IMGTK_SNAPSHOT_APPLY, .name = "s" };
    return driver->edit_snapshot(handle, &change, err);
}

static int delete_snapshot(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    struct imgtk_snapshot_change change = { .action = IMGTK_SNAPSHOT_DELETE, .name = "1" };
    return driver->edit_snapshot(handle, &change, err);
}

/* Two clusters that a snapshot shares, and one that becomes zero. */
static int write_and_zero(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    uint8_t bytes[2 * CLUSTER];
    memset(bytes, 'n', sizeof(bytes));
    int status = driver->edit_write(handle, bytes, sizeof(bytes), CLUSTER, err);
    return status == 0 ? driver->edit_zero(handle, 4 * CLUSTER, CLUSTER, err) : status;
}

static int empty(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    return driver->edit_empty(handle, err);
}

static int shrink(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    return driver->edit_resize(handle, 3 * CLUSTER, err);
}

/* Past what the cluster of the L1 table has room for. */
static int grow(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    return driver->edit_resize(handle, UINT64_C(100) * 64 * CLUSTER, err);
}

/* The name and the format lie within the first sector, as all of this image's header does. */
static int name_backing_file(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    return driver->edit_backing(handle, "below.qcow2", "qcow2", err);
}

static void changes(void **state)
{
    static const change_fn alone[] = { create_snapshot, write_and_zero, empty, shrink, grow };
    struct disk *disk = malloc(sizeof(*disk)), *changed = malloc(sizeof(*changed));
    (void)state;
    assert_non_null(disk);
    assert_non_null(changed);
    for (size_t i = 0; i < sizeof(alone) / sizeof(alone[0]); i++) {
        make_image(disk);
        if (alone[i] == write_and_zero) /* else data would be written over data */
            assert_int_equal(run(disk, create_snapshot), 0);
        cut_everywhere(disk, alone[i], changed);
    }
    free(changed);
    free(disk);
}

static void changes_that_follow(void **state)
{
    static const change_fn chain[] = { create_snapshot, write_and_zero, apply_snapshot, create_snapshot, grow,
                                       delete_snapshot, shrink, empty };
    struct disk *disk = malloc(sizeof(*disk)), *changed = malloc(sizeof(*changed));
    (void)state;
    assert_non_null(disk);
    assert_non_null(changed);
    make_image(disk);
    for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++) {
        cut_everywhere(disk, chain[i], changed);
        *disk = *changed;
    }
    free(changed);
    free(disk);
}

/* One write in all: what is not counted need not be read. */
static void a_name_is_one_write(void **state)
{
    struct disk *disk = malloc(sizeof(*disk));
    (void)state;
    assert_non_null(disk);
    make_image(disk);
    assert_int_equal(run(disk, name_backing_file), 0);
    assert_int_equal(disk->writes, 1);
    assert_int_equal(disk->flushed, 1);
    assert_int_equal(imgtk_be32(disk->bytes + QCOW2_AT_BACKING_LENGTH), strlen("below.qcow2"));
    free(disk);
}

/* Nothing of what was not committed is left, not even space. */
static int give_up(const struct imgtk_driver *driver, void *handle, struct imgtk_error *err)
{
    int status = create_snapshot(driver, handle, err);
    return status == 0 ? IMGTK_EIO : status;
}

static void what_is_given_up_leaves_no_trace(void **state)
{
    struct disk *disk = malloc(sizeof(*disk)), *before = malloc(sizeof(*before));
    (void)state;
    assert_non_null(disk);
    assert_non_null(before);
    make_image(disk);
    *before = *disk;
    assert_int_equal(run(disk, give_up), IMGTK_EIO);
    assert_true(disk->writes > 1);
    assert_int_equal(disk->size, before->size);
    assert_memory_equal(disk->bytes, before->bytes, disk->size);
    free(before);
    free(disk);
}

static void what_is_begun_again_begins_anew(void **state)
{
    const struct imgtk_driver *driver = imgtk_driver_v1();
    struct disk *disk = malloc(sizeof(*disk));
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_edit edit = { .same_disk = false };
    struct state before, after;
    (void)state;
    assert_non_null(disk);
    make_image(disk);
    look(disk, &before);
    struct open_disk opened = open_disk(disk);
    assert_int_equal(driver->edit_begin(opened.handle, &edit, &err), 0);
    assert_int_equal(shrink(driver, opened.handle, &err), 0);
    assert_int_equal(driver->edit_begin(opened.handle, &edit, &err), 0);
    assert_int_equal(driver->edit_commit(opened.handle, &err), 0);
    close_disk(&opened);
    look(disk, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes),
        cmocka_unit_test(changes_that_follow),
        cmocka_unit_test(a_name_is_one_write),
        cmocka_unit_test(what_is_given_up_leaves_no_trace),
        cmocka_unit_test(what_is_begun_again_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
