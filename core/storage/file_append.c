/*
 * Taking space ahead of a file that is written from front to back. ext4 counts and records what is written to new blocks
 * one by one until they reach the disk, a seventh of the time that writing takes; blocks that the file has already cost
 * nothing but their bytes. Other file systems think ahead by themselves (xfs), or would lose by it (btrfs, tmpfs).
 */
#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FROM (UINT64_C(16) << 20) /* smaller files are written before it pays */
#define STEP (UINT64_C(64) << 20)
#define GIVEN_BACK UINT64_MAX /* and no more is taken */

static bool counts_single_blocks(int fd)
{
    struct statfs system;
    return fstatfs(fd, &system) == 0 && (uint64_t)system.f_type == EXT4_SUPER_MAGIC;
}

void file_will_append(void *handle)
{
    struct file *file = handle;
    struct file_append *append = &file->append;
    if (append->expected || !file->new_file || !counts_single_blocks(file->fd))
        return;
    pthread_rwlock_init(&append->lock, NULL);
    atomic_init(&append->taken, FROM);
    append->expected = true;
}

void file_append_destroy(struct file *file)
{
    if (file->append.expected)
        pthread_rwlock_destroy(&file->append.lock);
}

void file_append_enter(struct file *file)
{
    if (file->append.expected)
        pthread_rwlock_rdlock(&file->append.lock);
}

void file_append_leave(struct file *file)
{
    if (file->append.expected)
        pthread_rwlock_unlock(&file->append.lock);
}

/* ---- The lock is held for writing, or nobody else is there ----------------------- */

static int give_back(struct file *file, struct imgtk_error *err)
{
    uint64_t size;
    int status = file_size(file, &size, err);
    if (status)
        return status;
    int result;
    do
        result = ftruncate(file->fd, (off_t)size);
    while (result < 0 && errno == EINTR);
    return result < 0 ? imgtk_fail_errno(err, errno, "cannot give back the space beyond its end") : 0;
}

/*
 * A step that cannot be had is no failure: whether there is room for what is written, the write tells. What ext4 took
 * before it found too little goes back, since gaps may be waiting for their blocks further in front.
 */
static bool take_step(struct file *file, uint64_t offset)
{
    int result;
    do
        result = fallocate(file->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)STEP);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        give_back(file, NULL);
    return result == 0;
}

/* ---- For the writers --------------------------------------------------------------- */

static uint64_t taken(const struct file_append *append)
{
    return atomic_load_explicit(&append->taken, memory_order_relaxed);
}

void file_append_before(struct file *file, uint64_t offset, uint64_t length)
{
    struct file_append *append = &file->append;
    if (!append->expected || offset + length <= taken(append))
        return;
    pthread_rwlock_wrlock(&append->lock);
    if (offset + length > taken(append)) {
        uint64_t from = offset > taken(append) ? offset : taken(append);
        atomic_store(&append->taken, take_step(file, from) ? from + STEP : GIVEN_BACK);
    }
    pthread_rwlock_unlock(&append->lock);
}

bool file_append_make_room(struct file *file, int os_errno)
{
    struct file_append *append = &file->append;
    if (!append->expected || (os_errno != ENOSPC && os_errno != EDQUOT))
        return false;
    pthread_rwlock_wrlock(&append->lock);
    bool made = taken(append) == GIVEN_BACK;
    if (!made && taken(append) != FROM) {
        made = give_back(file, NULL) == 0;
        atomic_store(&append->taken, GIVEN_BACK);
    }
    pthread_rwlock_unlock(&append->lock);
    return made;
}

int file_append_end(struct file *file, struct imgtk_error *err)
{
    return file->append.expected && taken(&file->append) != FROM ? give_back(file, err) : 0;
}
