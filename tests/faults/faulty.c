/*
 * Preloaded into imgtk: makes one of its input and output calls fail, return
 * short, or be interrupted, and writes to a log how many there were.
 *
 *   FAULT_LOG    file that each counted call appends a byte to, and the name of the one that was hit
 *   FAULT_AT     which call, from 1; 0: none
 *   FAULT_ERRNO  what it fails with; 0: it moves half of its bytes (those that move bytes)
 *   FAULT_KILL   set: the process dies there instead, by SIGKILL; "half": after half of the bytes,
 *                or after a call that moves none
 *   FAULT_FLIP   set: the call succeeds, but the last byte that it writes is inverted on its way (those that write bytes)
 *   FAULT_CALLS  calls that count, separated by commas; unset: all below but open, lseek, fstat and close
 *   FAULT_NAMED  set: no file can be made without a name, as on a file system that has no O_TMPFILE
 *   FAULT_DELAY  microseconds that each of them takes longer
 *   FAULT_CACHED set: what is in the page cache may be looked at there; else all has to be read
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long counter;

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

static int log_fd = -1;

/* At once: the program may confine itself, and then the log could not be opened any more. */
__attribute__((constructor)) static void open_log(void)
{
    const char *path = getenv("FAULT_LOG");
    /* Not open(), which is one of the calls that may fail. */
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    log_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 100); /* not in the place of one that a test counts on */
    if (fd >= 0)
        close(fd);
}

static void log_text(const char *text)
{
    if (log_fd >= 0 && write(log_fd, text, strlen(text)) < 0)
        abort();
}

static bool counts(const char *call)
{
    const char *calls = getenv("FAULT_CALLS");
    size_t length = strlen(call);
    for (const char *at = calls; at && (at = strstr(at, call)); at += length)
        if ((at == calls || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return true;
    return !calls && strcmp(call, "open") != 0 && strcmp(call, "lseek") != 0 && strcmp(call, "fstat") != 0 &&
           strcmp(call, "close") != 0;
}

/* Whether this call is the one; *fails: with an error, not short. */
static bool is_hit(const char *call, bool *fails)
{
    int saved = errno;
    *fails = false;
    if (!counts(call))
        return false;
    if (number("FAULT_DELAY"))
        usleep((useconds_t)number("FAULT_DELAY"));
    bool hit = atomic_fetch_add(&counter, 1) + 1 == number("FAULT_AT");
    log_text(".");
    if (hit)
        log_text(call);
    if (hit && getenv("FAULT_KILL") && strcmp(getenv("FAULT_KILL"), "half") != 0)
        raise(SIGKILL);
    *fails = hit && number("FAULT_ERRNO") != 0;
    errno = *fails ? (int)number("FAULT_ERRNO") : saved;
    return hit;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) \
        *(void **)&real = dlsym(RTLD_NEXT, #name)

/* The buffer is the caller's, so the byte is written once more. */
#define FLIP(fd, buf, done, offset) \
    if (hit && getenv("FAULT_FLIP") && done > 0) { \
        char wrong = (char)~((const char *)buf)[done - 1]; \
        if (real(fd, &wrong, 1, offset + done - 1) != 1) \
            abort(); \
    }
#define KEEP(fd, buf, done, offset)

#define MOVES(name, call, buffer, AFTER) \
    ssize_t name(int fd, buffer buf, size_t length, off64_t offset); \
    ssize_t name(int fd, buffer buf, size_t length, off64_t offset) \
    { \
        bool fails; \
        REAL(ssize_t, name, int, buffer, size_t, off64_t); \
        bool hit = is_hit(call, &fails); \
        bool cut = hit && !getenv("FAULT_FLIP") && length > 1; \
        ssize_t done = fails ? -1 : real(fd, buf, cut ? length / 2 : length, offset); \
        AFTER(fd, buf, done, offset) \
        if (hit && getenv("FAULT_KILL")) \
            raise(SIGKILL); \
        return done; \
    }

#define FAILS(name, call, parameters, types, arguments) \
    int name parameters; \
    int name parameters \
    { \
        bool fails; \
        REAL(int, name, types); \
        bool hit = is_hit(call, &fails); \
        int result = fails ? -1 : real arguments; \
        if (hit && getenv("FAULT_KILL")) \
            raise(SIGKILL); \
        return result; \
    }

#define LIST(...) __VA_ARGS__

MOVES(pread, "pread", void *, KEEP)
MOVES(pread64, "pread", void *, KEEP)
MOVES(pwrite, "pwrite", const void *, FLIP)
MOVES(pwrite64, "pwrite", const void *, FLIP)
FAILS(fsync, "fsync", (int fd), int, (fd))
FAILS(fdatasync, "fsync", (int fd), int, (fd))
FAILS(ftruncate, "ftruncate", (int fd, off64_t size), LIST(int, off64_t), (fd, size))
FAILS(ftruncate64, "ftruncate", (int fd, off64_t size), LIST(int, off64_t), (fd, size))
FAILS(fallocate, "fallocate", (int fd, int mode, off64_t at, off64_t size), LIST(int, int, off64_t, off64_t),
      (fd, mode, at, size))
FAILS(fallocate64, "fallocate", (int fd, int mode, off64_t at, off64_t size), LIST(int, int, off64_t, off64_t),
      (fd, mode, at, size))
FAILS(linkat, "linkat", (int a, const char *b, int c, const char *d, int e),
      LIST(int, const char *, int, const char *, int), (a, b, c, d, e))
FAILS(rename, "rename", (const char *a, const char *b), LIST(const char *, const char *), (a, b))
FAILS(renameat, "rename", (int a, const char *b, int c, const char *d), LIST(int, const char *, int, const char *),
      (a, b, c, d))
FAILS(renameat2, "rename", (int a, const char *b, int c, const char *d, unsigned e),
      LIST(int, const char *, int, const char *, unsigned), (a, b, c, d, e))

/* It is closed all the same. */
int close(int fd)
{
    bool fails;
    REAL(int, close, int);
    is_hit("close", &fails);
    int error = errno, result = real(fd);
    errno = error;
    return fails ? -1 : result;
}

FAILS(fstat, "fstat", (int fd, struct stat *st), LIST(int, struct stat *), (fd, st))
FAILS(fstat64, "fstat", (int fd, struct stat64 *st), LIST(int, struct stat64 *), (fd, st))

off64_t lseek64(int fd, off64_t offset, int whence)
{
    bool fails;
    REAL(off64_t, lseek64, int, off64_t, int);
    is_hit("lseek", &fails);
    return fails ? -1 : real(fd, offset, whence);
}

static mode_t mode_of(int flags, va_list list)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;
}

int open64(const char *path, int flags, ...)
{
    bool fails;
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    REAL(int, open64, const char *, int, ...);
    is_hit("open", &fails);
    return fails ? -1 : real(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    bool fails;
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    REAL(int, openat64, int, const char *, int, ...);
    is_hit("open", &fails);
    if ((flags & __O_TMPFILE) && getenv("FAULT_NAMED")) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return fails ? -1 : real(folder, path, flags, mode);
}

ssize_t __pread64_chk(int fd, void *buf, size_t length, off64_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t length, off64_t offset, size_t room)
{
    (void)room;
    return pread64(fd, buf, length, offset);
}

/* Asks whether something is in the page cache. */
#define PEEKS(name) \
    ssize_t name(int fd, const struct iovec *list, int count, off64_t offset, int flags) \
    { \
        REAL(ssize_t, name, int, const struct iovec *, int, off64_t, int); \
        errno = EAGAIN; \
        return getenv("FAULT_CACHED") ? real(fd, list, count, offset, flags) : -1; \
    }

PEEKS(preadv2)
PEEKS(preadv64v2)

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t length, unsigned flags)
{
    bool fails;
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    bool hit = is_hit("copy_file_range", &fails);
    return fails ? -1 : real(from, in, to, out, hit && length > 1 ? length / 2 : length, flags);
}
