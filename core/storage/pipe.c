/* What can only be read or written once, in order: pipes, sockets, terminals, character devices. See sequence.c. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "storage/storage.h"

enum {
    PIPE_BUFFER = 1 << 20, /* what Linux allows anyone; fewer switches between the two processes */
    FIFO_WAIT_MS = 5000,   /* for the other end of a FIFO to be opened */
    FIFO_POLL_MS = 10
};

struct pipe {
    int fd;
    bool writable;
    bool has_early; /* read while waiting for the writer of a FIFO */
    unsigned char early;
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

static int pipe_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    *done = 0;
    if (pipe->has_early && length > 0) {
        *(unsigned char *)buf = pipe->early;
        pipe->has_early = false;
        *done = 1;
    }
    while (*done < length) {
        ssize_t count = read(pipe->fd, (char *)buf + *done, length - *done);
        if (count < 0 && wait_and_retry(pipe->fd, POLLIN))
            continue;
        if (count < 0)
            return imgtk_fail_errno(err, errno, "cannot read at offset %" PRIu64, offset + *done);
        if (count == 0)
            break;
        *done += (size_t)count;
    }
    return 0;
}

static int pipe_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct pipe *pipe = handle;
    while (length > 0) {
        ssize_t count = write(pipe->fd, buf, length);
        if (count < 0 && wait_and_retry(pipe->fd, POLLOUT))
            continue;
        if (count < 0)
            return imgtk_fail_errno(err, errno, "cannot write at offset %" PRIu64, offset);
        buf = (const char *)buf + count;
        offset += (uint64_t)count;
        length -= (size_t)count;
    }
    return 0;
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
        ssize_t count = read(pipe->fd, &pipe->early, 1);
        pipe->has_early = count > 0;
        struct pollfd state = { .fd = pipe->fd, .events = POLLIN };
        if (count != 0 || (poll(&state, 1, 0) > 0 && (state.revents & POLLHUP)))
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
