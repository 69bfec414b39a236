/*
 * A module for the loader's tests, complete as it stands. A macro spoils one thing:
 * NAME, SYMBOL (what it calls itself and exports), WITHOUT_READ, HALF_PREPARED, NO_TABLE, SMALL_TABLE, OLD_TABLE,
 * LARGE_TABLE, LOUD (leaves a file when it is loaded).
 *
 * An image is "TINYDISK" and a size, 64 bits little-endian; the disk is full of 'x'.
 */
#include <imgtk/bytes.h>
#include <imgtk/driver.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef NAME
#define NAME "tiny"
#endif
#ifndef SYMBOL
#define SYMBOL imgtk_driver_v1
#endif

static enum imgtk_probe_result tiny_probe(const struct imgtk_probe *probe)
{
    return probe->head_length >= 16 && memcmp(probe->head, "TINYDISK", 8) == 0 ? IMGTK_PROBE_YES : IMGTK_PROBE_NO;
}

static int tiny_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    uint8_t head[16];
    int rc = imgtk_storage_pread(args->file, head, sizeof(head), 0, err);
    if (rc != 0) {
        return rc;
    }
    uint64_t *size = malloc(sizeof(*size));
    if (size == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    *size = imgtk_le64(head + 8);
    *handle = size;
    return 0;
}

static void tiny_close(void *handle)
{
    free(handle);
}

static uint64_t tiny_size(void *handle)
{
    return *(uint64_t *)handle;
}

static int tiny_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)err;
    memset(buf, 'x', length);
    return 0;
}

#ifdef HALF_PREPARED
static int tiny_prepare(void *writer, const struct imgtk_write *write, void **prepared, struct imgtk_error *err)
{
    (void)writer, (void)write, (void)prepared;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "never called");
}
#endif

/* As a module of a later minor version would have it: a table that goes on behind what this version knows. */
static const struct {
    struct imgtk_driver driver;
    void (*later_op)(void);
} table = {
    .driver = {
#if defined(SMALL_TABLE)
        .struct_size = offsetof(struct imgtk_driver, open),
#elif defined(OLD_TABLE)
        .struct_size = offsetof(struct imgtk_driver, extent),
#elif defined(LARGE_TABLE)
        .struct_size = sizeof(table),
#else
        .struct_size = sizeof(struct imgtk_driver),
#endif
        .name = NAME,
        .description = "a tiny format",
        .version = "1.0",
        .probe = tiny_probe,
        .open = tiny_open,
        .close = tiny_close,
        .size = tiny_size,
#ifndef WITHOUT_READ
        .read = tiny_read,
#endif
#ifdef HALF_PREPARED
        .prepare = tiny_prepare,
#endif
    },
    .later_op = abort,
};

#ifdef LOUD
__attribute__((constructor)) static void tell(void)
{
    FILE *file = fopen(LOUD, "w");
    if (file != NULL) {
        fclose(file);
    }
}
#endif

IMGTK_API const struct imgtk_driver *SYMBOL(void);
IMGTK_API const struct imgtk_driver *SYMBOL(void)
{
    (void)tiny_read;
#ifdef NO_TABLE
    (void)table;
    return NULL;
#else
    return &table.driver;
#endif
}
