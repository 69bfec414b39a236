/*
 * Preloaded into imgtk: makes one of its allocations fail, and tells how many
 * there were.
 *
 *   NOMEM_LOG   file that gets the number of calls when the process ends
 *   NOMEM_AT    which call, from 1; 0: none
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long counter, chosen;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("NOMEM_AT");
    atomic_store(&chosen, text ? strtol(text, NULL, 10) : 0);
    atomic_store(&counter, 0);
}

__attribute__((destructor)) static void end(void)
{
    long calls = atomic_load(&counter);
    const char *path = getenv("NOMEM_LOG");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%ld\n", calls);
        fclose(file);
    }
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
