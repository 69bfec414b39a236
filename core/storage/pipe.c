/*
 * What can only be read or written once, in order: pipes, sockets, terminals,
 * character devices. The beginning is kept, so that a format can be probed and
 * its header read again; going forward skips, or fills with zeroes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "imgtk/bytes.h"
#include "storage/storage.h"

enum {
    HEAD_SIZE = 64 << 10,
    PIPE_BUFFER = 1 << 20, /* what Linux allows anyone; fewer switches between the two processes */
    FIFO_WAIT_MS = 5000,   /* for the other end of a FIFO to be opened */
    FIFO_POLL_MS = 10
};

struct pipe {
    int fd;
    bool writable;
    pthread_mutex_t lock; /* of what follows, held while reading or writing: the order is all there is; a leaf */
    uint64_t position;    /* bytes taken from or put into fd */
    bool ended;
    size_t head_length;
    unsigned char head[HEAD_SIZE];
};

static int pipe_ops_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                         struct imgtk_error *err)
{
    (void)flags, (void)opts, (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "'%s' is opened by its path", name); /* see open.c */
}

static void pipe_close(void *handle)
{
    struct pipe *pipe = handle;
    close(pipe->fd);
    pthread_mutex_destroy(&pipe->lock);
    free(pipe);
}

static uint32_t pipe_flags(void *handle)
{
    const struct pipe *pipe = handle;
    return IMGTK_STORAGE_SEQUENTIAL | (pipe->writable ? IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_READS_ZERO : 0);
}

static int pipe_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    (void)handle, (void)out;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the size of a pipe is not known before its end");
}

/* A descriptor that we were given may be set not to block. */
static bool wait_and_retry(int fd, short events)
{
    if (errno == EAGAIN) {
        struct pollfd ready = { .fd = fd, .events = events };
        poll(&ready, 1, -1);
        return true;
    }
    return errno == EINTR;
}

/* ---- Reading ------------------------------------------------------------------------ */

/* Fills buf unless the input ends before. */
static int take_bytes(struct pipe *pipe, void *buf, size_t length, size_t *done, struct imgtk_error *err)
{
    *done = 0;
    while (*done < length && !pipe->ended) {
        ssize_t count = read(pipe->fd, (char *)buf + *done, length - *done);
        if (count < 0 && wait_and_retry(pipe->fd, POLLIN))
            continue;
        if (count < 0)
            return imgtk_fail_errno(err, errno, "cannot read at offset %" PRIu64, pipe->position);
        pipe->ended = count == 0;
        *done += (size_t)count;
        pipe->position += (uint64_t)count;
    }
    return 0;
}

static int fill_head(struct pipe *pipe, uint64_t end, struct imgtk_error *err)
{
    size_t want = (size_t)imgtk_min_u64(end, HEAD_SIZE);
    if (want <= pipe->head_length)
        return 0;
    size_t done;
    int status = take_bytes(pipe, pipe->head + pipe->head_length, want - pipe->head_length, &done, err);
    pipe->head_length += done;
    return status;
}

static int skip_to(struct pipe *pipe, uint64_t offset, struct imgtk_error *err)
{
    unsigned char dropped[16 << 10];
    while (pipe->position < offset && !pipe->ended) {
        size_t done;
        size_t piece = (size_t)imgtk_min_u64(sizeof(dropped), offset - pipe->position);
        int status = take_bytes(pipe, dropped, piece, &done, err);
        if (status)
            return status;
    }
    return 0;
}

static int read_in_order(struct pipe *pipe, unsigned char *buf, size_t length, uint64_t offset, size_t *done,
                         struct imgtk_error *err)
{
    int status = fill_head(pipe, offset + length, err);
    if (status)
        return status;
    if (offset < pipe->head_length) {
        *done = (size_t)imgtk_min_u64(length, pipe->head_length - offset);
        memcpy(buf, pipe->head + offset, *done);
    }
    if (*done == length || pipe->ended)
        return 0;
    if (offset + *done < pipe->position)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a pipe is read once, in order: offset %" PRIu64 " is wanted after %"
                          PRIu64, offset + *done, pipe->position);
    status = skip_to(pipe, offset + *done, err);
    size_t more = 0;
    if (status == 0)
        status = take_bytes(pipe, buf + *done, length - *done, &more, err);
    *done += more;
    return status;
}

static int pipe_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    *done = 0;
    pthread_mutex_lock(&pipe->lock);
    int status = read_in_order(pipe, buf, length, offset, done, err);
    pthread_mutex_unlock(&pipe->lock);
    return status;
}

/* ---- Writing -------------------------------------------------------------------------- */

/* With the lock held. */
static int put_bytes(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    (void)offset;
    while (length > 0) {
        ssize_t count = write(pipe->fd, buf, length);
        if (count < 0 && wait_and_retry(pipe->fd, POLLOUT))
            continue;
        if (count < 0)
            return imgtk_fail_errno(err, errno, "cannot write at offset %" PRIu64, pipe->position);
        buf = (const char *)buf + count;
        length -= (size_t)count;
        pipe->position += (uint64_t)count;
    }
    return 0;
}

/* What is left out reads as zeroes in a new file, and so it does here. */
static int advance_to(struct pipe *pipe, uint64_t offset, struct imgtk_error *err)
{
    if (offset < pipe->position)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a pipe is written once, in order: offset %" PRIu64
                          " comes after %" PRIu64, offset, pipe->position);
    return storage_write_zeroes(put_bytes, pipe, pipe->position, offset - pipe->position, err);
}

static int pipe_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    pthread_mutex_lock(&pipe->lock);
    int status = advance_to(pipe, offset, err);
    if (status == 0)
        status = put_bytes(pipe, buf, length, offset, err);
    pthread_mutex_unlock(&pipe->lock);
    return status;
}

static int pipe_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    (void)flags;
    pthread_mutex_lock(&pipe->lock);
    int status = advance_to(pipe, offset, err);
    if (status == 0)
        status = advance_to(pipe, offset + length, err);
    pthread_mutex_unlock(&pipe->lock);
    return status;
}

static int pipe_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    return pipe_zero(handle, size, 0, 0, err);
}

/* A pipe has nothing to flush and says so by EINVAL; a file behind stdout has. */
static int pipe_flush(void *handle, struct imgtk_error *err)
{
    const struct pipe *pipe = handle;
    int result = 0;
    do
        result = pipe->writable ? fdatasync(pipe->fd) : 0;
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno != EINVAL && errno != EROFS && errno != EOPNOTSUPP)
        return imgtk_fail_errno(err, errno, "cannot bring the data to the disk");
    return 0;
}

static const struct imgtk_storage_ops pipe_ops = {
    .struct_size = sizeof(struct imgtk_storage_ops),
    .name = "pipe",
    .description = "pipes and whatever else is read or written in order",
    .version = IMGTK_VERSION,
    .open = pipe_ops_open,
    .close = pipe_close,
    .size = pipe_size,
    .pread = pipe_pread,
    .flags = pipe_flags,
    .pwrite = pipe_pwrite,
    .zero = pipe_zero,
    .truncate = pipe_truncate,
    .flush = pipe_flush,
};

/* ---- Opening ----------------------------------------------------------------------------- */

static struct pipe *new_pipe(int fd, uint32_t flags, struct imgtk_error *err)
{
    struct pipe *pipe = calloc(1, sizeof(*pipe));
    if (!pipe) {
        close(fd);
        imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
        return NULL;
    }
    pipe->fd = fd;
    pipe->writable = flags & IMGTK_STORAGE_WRITABLE;
    pthread_mutex_init(&pipe->lock, NULL);
    (void)fcntl(fd, F_SETPIPE_SZ, PIPE_BUFFER); /* where it is a pipe and the user's share allows it */
    return pipe;
}

int pipe_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    *out = NULL;
    struct pipe *pipe = new_pipe(fd, flags, err);
    return pipe ? storage_wrap(&pipe_ops, pipe, name, out, err) : IMGTK_ENOMEM;
}

static void sleep_briefly(void)
{
    struct timespec pause = { .tv_nsec = FIFO_POLL_MS * 1000000L };
    nanosleep(&pause, NULL);
}

/* ENXIO: nobody reads yet. */
static int open_when_read(const char *path)
{
    int fd;
    for (int waited = 0; waited < FIFO_WAIT_MS; waited += FIFO_POLL_MS) {
        fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (fd >= 0 || errno != ENXIO)
            return fd;
        sleep_briefly();
    }
    errno = ENXIO;
    return -1;
}

/*
 * A FIFO reads as ended before its writer has come, and as empty for now once
 * one is there; POLLHUP tells a writer that came and went. False: none came.
 */
static bool wait_for_writer(struct pipe *pipe)
{
    for (int waited = 0; waited < FIFO_WAIT_MS; waited += FIFO_POLL_MS) {
        ssize_t count = read(pipe->fd, pipe->head, HEAD_SIZE);
        if (count > 0) {
            pipe->head_length = (size_t)count;
            pipe->position = (uint64_t)count;
            return true;
        }
        struct pollfd state = { .fd = pipe->fd, .events = POLLIN };
        if (count < 0 || (poll(&state, 1, 0) > 0 && (state.revents & POLLHUP)))
            return true;
        sleep_briefly();
    }
    return false;
}

static bool is_fifo(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

int pipe_open(const char *path, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    *out = NULL;
    bool writable = flags & IMGTK_STORAGE_WRITABLE;
    int fd = writable ? open_when_read(path) : open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == ENXIO && writable)
        return imgtk_fail_errno(err, errno, "Could not open '%s': nobody reads it", path);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", path);
    struct pipe *pipe = new_pipe(fd, flags, err);
    if (!pipe)
        return IMGTK_ENOMEM;
    int status = 0;
    if (!writable && is_fifo(fd) && !wait_for_writer(pipe))
        status = imgtk_fail(err, IMGTK_EIO, "Could not open '%s': nobody writes to this FIFO (waited %d seconds)", path,
                            FIFO_WAIT_MS / 1000);
    int mode = fcntl(fd, F_GETFL);
    if (status == 0 && (mode < 0 || fcntl(fd, F_SETFL, mode & ~O_NONBLOCK) < 0))
        status = imgtk_fail_errno(err, errno, "Could not open '%s'", path);
    if (status) {
        pipe_close(pipe);
        return status;
    }
    return storage_wrap(&pipe_ops, pipe, path, out, err);
}
