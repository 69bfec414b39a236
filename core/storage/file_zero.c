#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "imgtk/bytes.h"

/* Devices zero whole logical blocks, which are no larger; the edges are written. */
enum { DEVICE_UNIT = 4096 };

static int write_zeroes(struct file *file, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    return storage_write_zeroes(file_pwrite, file, offset, length, err);
}

/* One way to do it, which is remembered as refused when it is: *done false then, and no error. */
static int try_fallocate(struct file *file, int mode, atomic_bool *refused, uint64_t offset, uint64_t length,
                         bool *done, struct imgtk_error *err)
{
    *done = false;
    if (length == 0 || atomic_load_explicit(refused, memory_order_relaxed))
        return 0;
    int result;
    file_append_enter(file);
    do
        result = fallocate(file->fd, mode, (off_t)offset, (off_t)length);
    while (result < 0 && errno == EINTR);
    file_append_leave(file);
    *done = result == 0;
    if (result < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
        return imgtk_fail_errno(err, errno, "cannot zero %" PRIu64 " bytes at offset %" PRIu64, length, offset);
    if (result < 0)
        atomic_store_explicit(refused, true, memory_order_relaxed);
    return 0;
}

/* ---- Regular files ------------------------------------------------------------- */

/* By a write, since an ftruncate() may come after a worker that wrote beyond it, and cut that off again. */
static int grow(struct file *file, uint64_t old_size, uint64_t size, struct imgtk_error *err)
{
    return size > old_size ? file_pwrite(file, "", 1, size - 1, err) : 0;
}

static int make_hole(struct file *file, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    bool done;
    uint64_t old_size;
    int status = file_size(file, &old_size, err);
    if (status == 0)
        status = grow(file, old_size, offset + length, err);
    if (status == 0)
        status = try_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, &file->no_punch, offset, length, &done,
                               err);
    if (status || done || offset >= old_size)
        return status;
    return write_zeroes(file, offset, imgtk_min_u64(length, old_size - offset), err);
}

static int zero_in_place(struct file *file, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    bool done;
    int status = try_fallocate(file, FALLOC_FL_ZERO_RANGE, &file->no_zero_range, offset, length, &done, err);
    return status || done ? status : write_zeroes(file, offset, length, err);
}

/* ---- Block devices --------------------------------------------------------------- */

static bool zero_out(struct file *file, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = { offset, length };
    if (length == 0 || atomic_load_explicit(&file->no_zero_out, memory_order_relaxed))
        return false;
    int result;
    do
        result = ioctl(file->fd, BLKZEROOUT, range);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno != EIO)
        atomic_store_explicit(&file->no_zero_out, true, memory_order_relaxed);
    return result == 0;
}

/* Both ways promise zeroes to the reader; a discard does not. */
static int zero_device_blocks(struct file *file, uint64_t offset, uint64_t length, uint32_t flags,
                              struct imgtk_error *err)
{
    bool done = false;
    int status = 0;
    if (!(flags & IMGTK_ZERO_ALLOCATE))
        status = try_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, &file->no_punch, offset, length, &done,
                               err);
    if (status || done || zero_out(file, offset, length))
        return status;
    return write_zeroes(file, offset, length, err);
}

static int zero_device(struct file *file, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    if (!imgtk_range_fits(offset, length, file->device_size))
        return imgtk_fail(err, IMGTK_ENOSPACE, "%" PRIu64 " bytes at offset %" PRIu64 " do not fit on the device's %"
                          PRIu64, length, offset, file->device_size);
    uint64_t end = offset + length;
    uint64_t first = imgtk_min_u64(imgtk_round_up(offset, DEVICE_UNIT), end);
    uint64_t last = imgtk_round_down(end, DEVICE_UNIT);
    if (last < first)
        last = first;
    int status = write_zeroes(file, offset, first - offset, err);
    if (status == 0)
        status = zero_device_blocks(file, first, last - first, flags, err);
    return status ? status : write_zeroes(file, last, end - last, err);
}

int file_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    struct file *file = handle;
    if (file->device)
        return zero_device(file, offset, length, flags, err);
    return flags & IMGTK_ZERO_ALLOCATE ? zero_in_place(file, offset, length, err)
                                       : make_hole(file, offset, length, err);
}

/* ---- Space ------------------------------------------------------------------------ */

int file_allocate(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    struct file *file = handle;
    if (file->device)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a device has its space already");
    int result;
    do
        result = fallocate(file->fd, 0, (off_t)offset, (off_t)length);
    while (result < 0 && errno == EINTR);
    if (result == 0)
        return 0;
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the file system cannot reserve space");
    return imgtk_fail_errno(err, errno, "cannot reserve %" PRIu64 " bytes at offset %" PRIu64, length, offset);
}
