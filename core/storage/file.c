#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imgtk/bytes.h"

/* Linux moves a little less than 2 GiB per call. */
enum { MAX_IO = 1 << 30 };

static int file_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                     struct imgtk_error *err)
{
    (void)flags, (void)opts, (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "'%s' is opened by its path", name); /* see open.c */
}

static void file_close(void *handle)
{
    struct file *file = handle;
    file_behind_end(file);
    file_new_free(file->new_file);
    close(file->fd);
    pthread_mutex_destroy(&file->lock);
    file_append_destroy(file);
    free(file);
}

static uint32_t file_flags(void *handle)
{
    const struct file *file = handle;
    uint32_t flags = file->device ? IMGTK_STORAGE_FIXED_SIZE : IMGTK_STORAGE_HAS_EXTENTS | IMGTK_STORAGE_ONE_WRITER;
    if (file->writable)
        flags |= IMGTK_STORAGE_WRITABLE;
    if (file->was_empty)
        flags |= IMGTK_STORAGE_READS_ZERO;
    return flags;
}

static int file_fd(void *handle)
{
    return ((const struct file *)handle)->fd;
}

int file_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    const struct file *file = handle;
    if (file->device) {
        *out = file->device_size;
        return 0;
    }
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return imgtk_fail_errno(err, errno, "cannot ask for the size");
    *out = (uint64_t)st.st_size;
    return 0;
}

static int file_allocated(void *handle, uint64_t *out, struct imgtk_error *err)
{
    const struct file *file = handle;
    struct stat st;
    if (file->device)
        return file_size(handle, out, err);
    if (fstat(file->fd, &st) < 0)
        return imgtk_fail_errno(err, errno, "cannot ask for the space in use");
    *out = (uint64_t)st.st_blocks * 512;
    return 0;
}

static int file_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct file *file = handle;
    *done = 0;
    while (*done < length) {
        size_t piece = (size_t)imgtk_min_u64(length - *done, MAX_IO);
        ssize_t count = pread(file->fd, (char *)buf + *done, piece, (off_t)(offset + *done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return imgtk_fail_errno(err, errno, "cannot read %zu bytes at offset %" PRIu64, piece, offset + *done);
        if (count == 0)
            break;
        *done += (size_t)count;
    }
    file_has_read(file, offset, *done);
    return 0;
}

static ssize_t write_at(struct file *file, const void *buf, size_t length, uint64_t offset)
{
    ssize_t count;
    file_append_enter(file);
    do
        count = pwrite(file->fd, buf, length, (off_t)offset);
    while (count < 0 && errno == EINTR);
    file_append_leave(file);
    return count;
}

int file_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct file *file = handle;
    const struct file_range all = { offset, length };
    bool again = false;
    file_append_before(file, offset, length);
    while (length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, MAX_IO);
        ssize_t count = write_at(file, buf, piece, offset);
        int os_errno = count < 0 ? errno : ENOSPC;
        if (count < 0 && !again && file_append_make_room(file, os_errno)) {
            again = true;
            continue;
        }
        if (count <= 0)
            return imgtk_fail_errno(err, os_errno, "cannot write %zu bytes at offset %" PRIu64, piece,
                                    offset);
        buf = (const char *)buf + count;
        offset += (uint64_t)count;
        length -= (size_t)count;
    }
    return file_has_written(file, all.offset, all.length, err);
}

static int file_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct file *file = handle;
    if (file->device && size > file->device_size)
        return imgtk_fail(err, IMGTK_ENOSPACE, "%" PRIu64 " bytes are needed, and the device has %" PRIu64, size,
                          file->device_size);
    if (file->device)
        return size == file->device_size ? 0 : imgtk_fail(err, IMGTK_EUNSUPPORTED, "a device cannot be resized");
    int result;
    file_append_enter(file);
    do
        result = ftruncate(file->fd, (off_t)size);
    while (result < 0 && errno == EINTR);
    file_append_leave(file);
    return result < 0 ? imgtk_fail_errno(err, errno, "cannot resize to %" PRIu64 " bytes", size) : 0;
}

int file_flush(void *handle, struct imgtk_error *err)
{
    const struct file *file = handle;
    int result;
    do
        result = fdatasync(file->fd);
    while (result < 0 && errno == EINTR);
    return result < 0 ? imgtk_fail_errno(err, errno, "cannot bring the data to the disk") : 0;
}

/* ---- Extents ------------------------------------------------------------------ */

static bool find_run(struct file *file, uint64_t offset, struct file_run *out)
{
    bool found = false;
    pthread_mutex_lock(&file->lock);
    for (unsigned i = 0; !found && i < FILE_RUNS; i++) {
        found = offset >= file->runs[i].start && offset < file->runs[i].end;
        if (found)
            *out = file->runs[i];
    }
    pthread_mutex_unlock(&file->lock);
    return found;
}

static void keep_run(struct file *file, const struct file_run *run)
{
    pthread_mutex_lock(&file->lock);
    file->runs[file->next_run] = *run;
    file->next_run = (file->next_run + 1) % FILE_RUNS;
    pthread_mutex_unlock(&file->lock);
}

/* The run that begins at offset, without a length past the end of the file; false: the file system cannot tell. */
static bool seek_run(struct file *file, uint64_t offset, struct file_run *out)
{
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    *out = (struct file_run){ .start = offset, .end = (uint64_t)data, .kind = IMGTK_RANGE_ZERO };
    if (data > (off_t)offset)
        return true;
    if (data < 0) /* ENXIO: a hole up to the end */
        return errno == ENXIO && file_size(file, &out->end, NULL) == 0;
    off_t hole = lseek(file->fd, (off_t)offset, SEEK_HOLE);
    out->kind = IMGTK_RANGE_DATA;
    out->end = (uint64_t)hole;
    return hole > (off_t)offset; /* else the file is changing under us */
}

static int file_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out,
                       struct imgtk_error *err)
{
    struct file *file = handle;
    struct file_run run;
    (void)err;
    *out = (struct imgtk_range){ .kind = IMGTK_RANGE_DATA, .length = length };
    if (file->device || atomic_load_explicit(&file->no_extents, memory_order_relaxed))
        return 0;
    if (file->writable || !find_run(file, offset, &run)) {
        if (!seek_run(file, offset, &run)) {
            atomic_store_explicit(&file->no_extents, true, memory_order_relaxed);
            return 0;
        }
        if (run.end <= offset)
            return 0;
        if (!file->writable)
            keep_run(file, &run);
    }
    out->kind = run.kind;
    out->length = run.end - offset;
    return 0;
}

const struct imgtk_storage_ops file_ops = {
    .struct_size = sizeof(struct imgtk_storage_ops),
    .name = "file",
    .description = "regular files and block devices",
    .version = IMGTK_VERSION,
    .open = file_open,
    .close = file_close,
    .size = file_size,
    .pread = file_pread,
    .flags = file_flags,
    .pwrite = file_pwrite,
    .zero = file_zero,
    .extent = file_extent,
    .truncate = file_truncate,
    .flush = file_flush,
    .fd = file_fd,
    .commit = file_commit,
    .allocate = file_allocate,
    .allocated = file_allocated,
    .drop_cache = file_drop_cache,
    .will_append = file_will_append,
};

/* ---- Opening -------------------------------------------------------------------- */

static int learn_kind(struct file *file, struct imgtk_error *err)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return imgtk_fail_errno(err, errno, "cannot ask what it is");
    if (file->writable && (fcntl(file->fd, F_GETFL) & O_APPEND))
        return imgtk_fail(err, IMGTK_EINVAL, "it is open for appending, so it cannot be written in place");
    file->device = S_ISBLK(st.st_mode);
    file->was_empty = S_ISREG(st.st_mode) && st.st_size == 0;
    if (file->device && ioctl(file->fd, BLKGETSIZE64, &file->device_size) < 0)
        return imgtk_fail_errno(err, errno, "cannot ask for the size of the device");
    return 0;
}

int file_wrap(int fd, const char *name, uint32_t flags, struct file_new *new_file, struct imgtk_storage **out,
              struct imgtk_error *err)
{
    struct file *file = calloc(1, sizeof(*file));
    if (!file) {
        file_new_free(new_file);
        close(fd);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    file->fd = fd;
    file->writable = flags & IMGTK_STORAGE_WRITABLE;
    file->new_file = new_file;
    pthread_mutex_init(&file->lock, NULL);
    file_behind_init(&file->behind);
    int status = learn_kind(file, err);
    if (status) {
        file_close(file);
        return status;
    }
    if (!file->writable) /* images are read mostly in order: longer read-ahead */
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return storage_wrap(&file_ops, file, name, out, err);
}

int file_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    return file_wrap(fd, name, flags, NULL, out, err);
}
