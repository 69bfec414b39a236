/*
 * Preloaded into imgtk: makes one of its allocations fail, and tells how many
 * there were.
 *
 *   NOMEM_LOG   file that gets the number of calls when the process ends
 *   NOMEM_AT    which call, from 1; 0: none
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long counter, chosen;
static int log_fd = -1;

/* The log is opened at once: the program confines itself, and then it could not be opened any more. */
__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("NOMEM_AT"), *path = getenv("NOMEM_LOG");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    log_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 100);
    if (fd >= 0)
        close(fd);
    atomic_store(&chosen, text ? strtol(text, NULL, 10) : 0);
    atomic_store(&counter, 0);
}

__attribute__((destructor)) static void end(void)
{
    if (log_fd >= 0)
        dprintf(log_fd, "%ld\n", atomic_load(&counter));
}

static int fails(void)
{
    if (atomic_fetch_add(&counter, 1) + 1 != atomic_load(&chosen))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}
