#include "beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RACE_TRIES = 32 };

/* ---- With openat2 ------------------------------------------------------------------ */

static int try_openat2(int folder, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    /* EAGAIN: something was renamed meanwhile, so the kernel could not tell whether ".." stays beneath. */
    for (int i = 0; i < RACE_TRIES; i++) {
        fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}

static bool is_regular(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static int keep_if_regular(int fd)
{
    if (fd < 0 || is_regular(fd))
        return fd;
    close(fd);
    errno = EMEDIUMTYPE;
    return -1;
}

int beneath_open(int folder, const char *path, int access)
{
    /* Looked at before it is opened, since opening alone makes some devices act. */
    int fd = keep_if_regular(try_openat2(folder, path, O_PATH));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: what an old sandbox says of calls unknown to it */
        return beneath_open_by_walking(folder, path, access);
    if (fd < 0) {
        if (errno == ELOOP) /* a magic link, or too many */
            errno = EXDEV;
        return -1;
    }
    close(fd);
    /* Not blocking, and looked at again, should it have been replaced meanwhile. */
    return keep_if_regular(try_openat2(folder, path, access | O_NONBLOCK | O_NOCTTY | O_LARGEFILE));
}

/* ---- By walking --------------------------------------------------------------------- */

static bool is_dot_dot(const char *component, size_t length)
{
    return length == 2 && component[0] == '.' && component[1] == '.';
}

/* Copies the component at *path and steps behind it and its slashes; false at the end, or when it is too long. */
static bool next_component(const char **path, char out[NAME_MAX + 1])
{
    size_t length = strcspn(*path, "/");
    if (length == 0 || length > NAME_MAX) {
        errno = length ? ENAMETOOLONG : ENOENT;
        return false;
    }
    memcpy(out, *path, length);
    out[length] = '\0';
    *path += length;
    *path += strspn(*path, "/");
    return true;
}

/* -1 with EXDEV for a link */
static int step(int folder, const char *name)
{
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISLNK(st.st_mode))
        return fd;
    close(fd);
    errno = EXDEV;
    return -1;
}

static int open_last(int folder, const char *name, int access)
{
    int fd = keep_if_regular(step(folder, name));
    if (fd < 0)
        return -1;
    close(fd);
    fd = openat(folder, name, access | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return keep_if_regular(fd);
}

int beneath_open_by_walking(int folder, const char *path, int access)
{
    char name[NAME_MAX + 1];
    int at = fcntl(folder, F_DUPFD_CLOEXEC, 3);
    if (path[0] == '/') {
        close(at);
        errno = EXDEV;
        return -1;
    }
    while (at >= 0) {
        int next = -1;
        if (next_component(&path, name)) {
            if (is_dot_dot(name, strlen(name)))
                errno = EXDEV;
            else
                next = path[0] ? step(at, name) : open_last(at, name, access);
        }
        int saved = errno;
        close(at);
        errno = saved;
        at = next;
        if (path[0] == '\0')
            break;
    }
    return at;
}

bool beneath_find_link(int folder, const char *path, struct beneath_link *out)
{
    char name[NAME_MAX + 1];
    const char *rest = path;
    int at = fcntl(folder, F_DUPFD_CLOEXEC, 3);
    bool found = false;
    while (at >= 0 && !found) {
        out->before = (int)(rest - path);
        if (!next_component(&rest, name))
            break;
        ssize_t length = readlinkat(at, name, out->target, sizeof(out->target) - 1);
        if (length >= 0) {
            out->target[length] = '\0';
            out->after = rest;
            found = true;
        } else {
            int next = step(at, name);
            close(at);
            at = next;
        }
    }
    if (at >= 0)
        close(at);
    return found;
}

/* ---- Paths as text --------------------------------------------------------------------- */

bool path_normalise(const char *path, char out[PATH_MAX])
{
    size_t used = 0;
    while (*path) {
        size_t length = strcspn(path, "/");
        if (is_dot_dot(path, length)) {
            while (used > 0 && out[--used] != '/')
                ;
        } else if (length > 0 && !(length == 1 && path[0] == '.')) {
            if (used + 1 + length >= PATH_MAX) {
                errno = ENAMETOOLONG;
                return false;
            }
            out[used++] = '/';
            memcpy(out + used, path, length);
            used += length;
        }
        path += length;
        path += strspn(path, "/");
    }
    if (used == 0)
        out[used++] = '/';
    out[used] = '\0';
    return true;
}

const char *path_beneath(const char *path, const char *folder)
{
    size_t length = strcmp(folder, "/") == 0 ? 0 : strlen(folder);
    if (strncmp(path, folder, length) != 0 || path[length] != '/' || path[length + 1] == '\0')
        return NULL;
    return path + length + 1;
}
