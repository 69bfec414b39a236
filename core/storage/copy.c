/*
 * Copies that move no bytes: blocks that two files share, and copies that a file server makes. Between two local files
 * copy_file_range() saves nothing over reading and writing, and only one CPU can be at it.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "imgtk/bytes.h"
#include "storage/storage.h"

/* What a plain write would fail with as well; everything else means "not between these two". */
static bool is_real_failure(int os_errno)
{
    return os_errno == ENOSPC || os_errno == EDQUOT || os_errno == EIO || os_errno == EFBIG || os_errno == ENOMEM;
}

static int reflink(struct imgtk_storage *from, uint64_t from_offset, struct imgtk_storage *to, uint64_t to_offset,
                   uint64_t length, uint64_t *done, struct imgtk_error *err)
{
    length = imgtk_round_down(length, STORAGE_SHARED_UNIT);
    if (length == 0 || (from_offset | to_offset) % STORAGE_SHARED_UNIT != 0 || atomic_load(&to->no_reflink_from) == from)
        return 0;
    struct file_clone_range range = {
        .src_fd = from->ops.fd(from->handle),
        .src_offset = from_offset,
        .src_length = length,
        .dest_offset = to_offset,
    };
    int result;
    do
        result = ioctl(to->ops.fd(to->handle), FICLONERANGE, &range);
    while (result < 0 && errno == EINTR);
    if (result == 0) {
        *done = length;
        return 0;
    }
    if (is_real_failure(errno))
        return imgtk_fail_errno(err, errno, "cannot share %" PRIu64 " bytes at offset %" PRIu64, length, to_offset);
    /* EINVAL may lie in this range (its alignment, its end); the others lie in the two files. */
    if (errno != EINVAL)
        atomic_store(&to->no_reflink_from, from);
    return 0;
}

bool storage_is_on_server(const struct imgtk_storage *storage)
{
    struct statfs system;
    if (fstatfs(storage->ops.fd(storage->handle), &system) != 0)
        return false;
    uint64_t type = (uint64_t)system.f_type & UINT32_MAX;
    return type == NFS_SUPER_MAGIC || type == SMB2_SUPER_MAGIC || type == CIFS_SUPER_MAGIC || type == CEPH_SUPER_MAGIC;
}

static int copy_range(struct imgtk_storage *from, uint64_t from_offset, struct imgtk_storage *to, uint64_t to_offset,
                      uint64_t length, uint64_t *done, struct imgtk_error *err)
{
    int from_fd = from->ops.fd(from->handle);
    int to_fd = to->ops.fd(to->handle);
    while (*done < length) {
        off64_t in = (off64_t)(from_offset + *done);
        off64_t out = (off64_t)(to_offset + *done);
        size_t piece = (size_t)imgtk_min_u64(length - *done, 1u << 30);
        storage_begin_write(to);
        ssize_t count = copy_file_range(from_fd, &in, to_fd, &out, piece, 0);
        storage_end_write(to);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && is_real_failure(errno))
            return imgtk_fail_errno(err, errno, "cannot copy %zu bytes to offset %" PRIu64, piece, to_offset + *done);
        if (count < 0)
            atomic_store(&to->no_copy_from, from);
        if (count <= 0) /* 0: the source ends here, or belongs to a file system that answers so; reading will tell */
            return 0;
        *done += (uint64_t)count;
    }
    return 0;
}

bool storage_has_fd(const struct imgtk_storage *storage)
{
    return storage->ops.fd(storage->handle) >= 0;
}

bool storage_may_copy(const struct imgtk_storage *from, const struct imgtk_storage *to)
{
    return storage_has_fd(from) && storage_has_fd(to) &&
           (atomic_load(&to->no_reflink_from) != from || atomic_load(&to->no_copy_from) != from);
}

int imgtk_storage_copy(struct imgtk_storage *from, uint64_t from_offset, struct imgtk_storage *to, uint64_t to_offset,
                       uint64_t length, uint64_t *done, struct imgtk_error *err)
{
    *done = 0;
    if (!(to->flags & IMGTK_STORAGE_WRITABLE))
        return imgtk_fail(err, IMGTK_EINVAL, "it is open for reading only");
    if (!imgtk_range_fits(from_offset, length, INT64_MAX) || !imgtk_range_fits(to_offset, length, INT64_MAX))
        return imgtk_fail(err, IMGTK_EINVAL, "%" PRIu64 " bytes cannot be copied from offset %" PRIu64 " to %" PRIu64,
                          length, from_offset, to_offset);
    if (from->ops.fd(from->handle) < 0 || to->ops.fd(to->handle) < 0)
        return 0;
    int status = output_charge(&to->output, to_offset + length, err);
    if (status)
        return status;
    status = reflink(from, from_offset, to, to_offset, length, done, err);
    if (status || *done == length || atomic_load(&to->no_copy_from) == from)
        return status;
    if (storage_is_on_server(to))
        return copy_range(from, from_offset, to, to_offset, length, done, err);
    atomic_store(&to->no_copy_from, from);
    return 0;
}
