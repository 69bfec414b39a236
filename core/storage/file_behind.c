/*
 * Keeping the page cache small. What a large job reads and writes is used once: kept, it would push out what other
 * programs have there. So what was moved some while ago is written out, if need be, and dropped.
 */
#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

enum {
    MIN_RANGE = 64 << 10, /* tables and the like may be wanted again */
    LARGE_PIECE = 4 << 20,
    MEMORY_SHARE = 4      /* a file may fill this part of the memory before its pages are dropped */
};

void file_behind_init(struct file_behind *behind)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    behind->left = pages > 0 && page > 0 ? (int64_t)pages * page / MEMORY_SHARE : INT64_MAX;
}

void file_drop_cache(void *handle)
{
    struct file *file = handle;
    file->behind.always = true;
    posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
    atomic_store_explicit(&file->behind.left, 0, memory_order_relaxed);
}

/* Counts the range; true when it is to be dropped in its turn, and *out is what is due now (length 0: nothing yet). */
static bool take_turn(struct file *file, uint64_t offset, uint64_t length, struct file_range *out)
{
    struct file_behind *behind = &file->behind;
    if (length < MIN_RANGE || atomic_fetch_sub_explicit(&behind->left, (int64_t)length, memory_order_relaxed) > 0)
        return false;
    pthread_mutex_lock(&file->lock);
    *out = behind->ranges[behind->next];
    behind->ranges[behind->next] = (struct file_range){ offset, length };
    behind->next = (behind->next + 1) % FILE_BEHIND;
    pthread_mutex_unlock(&file->lock);
    return true;
}

/* With some of what lies before: what the kernel holds in one large piece goes only as a whole. */
static void drop(const struct file *file, const struct file_range *range)
{
    uint64_t before = range->offset < LARGE_PIECE ? range->offset : LARGE_PIECE;
    posix_fadvise(file->fd, (off_t)(range->offset - before), (off_t)(range->length + before), POSIX_FADV_DONTNEED);
}

void file_has_read(struct file *file, uint64_t offset, uint64_t length)
{
    struct file_range due;
    if (take_turn(file, offset, length, &due) && due.length)
        drop(file, &due);
}

/* A failure of writing out is told here or never: the kernel reports it once. */
static int write_out(const struct file *file, const struct file_range *range, unsigned flags, struct imgtk_error *err)
{
    if (sync_file_range(file->fd, (off64_t)range->offset, (off64_t)range->length, flags) == 0)
        return 0;
    if (errno != EIO && errno != ENOSPC && errno != EDQUOT && errno != ENOMEM)
        return 0; /* not for this kind of file */
    return imgtk_fail_errno(err, errno, "cannot bring %" PRIu64 " bytes at offset %" PRIu64 " to the disk", range->length,
                            range->offset);
}

int file_has_written(struct file *file, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    struct file_range now = { offset, length }, due;
    if (!take_turn(file, offset, length, &due))
        return 0;
    int status = write_out(file, &now, SYNC_FILE_RANGE_WRITE, err);
    if (status || due.length == 0)
        return status;
    status = write_out(file, &due, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER, err);
    drop(file, &due);
    return status;
}

void file_behind_end(struct file *file)
{
    if (file->behind.always)
        posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}
