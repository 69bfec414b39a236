/* Reads as zeroes, takes whatever is written and keeps none of it: for measuring. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "storage/storage.h"

struct null {
    _Atomic uint64_t size;
};

static int null_ops_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                         struct imgtk_error *err)
{
    (void)flags, (void)opts;
    uint64_t size = 0;
    const char *text = name + strlen("null:");
    int status = text[0] ? imgtk_parse_size(text, &size, err) : 0;
    if (status)
        return imgtk_fail_prefix(err, "'%s'", name);
    struct null *null = calloc(1, sizeof(*null));
    if (!null)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    atomic_init(&null->size, size);
    *handle = null;
    return 0;
}

static void null_close(void *handle)
{
    free(handle);
}

static uint32_t null_flags(void *handle)
{
    (void)handle;
    return IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_READS_ZERO | IMGTK_STORAGE_HAS_EXTENTS;
}

static int null_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    struct null *null = handle;
    (void)err;
    *out = atomic_load(&null->size);
    return 0;
}

static int null_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct null *null = handle;
    (void)err;
    uint64_t size = atomic_load(&null->size);
    uint64_t left = offset < size ? size - offset : 0;
    *done = left < length ? (size_t)left : length;
    memset(buf, 0, *done);
    return 0;
}

static void grow(struct null *null, uint64_t end)
{
    uint64_t size = atomic_load(&null->size);
    while (size < end && !atomic_compare_exchange_weak(&null->size, &size, end))
        ;
}

static int null_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    (void)buf, (void)err;
    grow(handle, offset + length);
    return 0;
}

static int null_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    (void)flags, (void)err;
    grow(handle, offset + length);
    return 0;
}

static int null_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out,
                       struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)err;
    out->length = length;
    out->kind = IMGTK_RANGE_ZERO;
    return 0;
}

static int null_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct null *null = handle;
    (void)err;
    atomic_store(&null->size, size);
    return 0;
}

static int null_allocate(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    (void)err;
    grow(handle, offset + length);
    return 0;
}

static const struct imgtk_storage_ops null_ops = {
    .struct_size = sizeof(struct imgtk_storage_ops),
    .name = "null",
    .description = "reads as zeroes, swallows what is written",
    .version = IMGTK_VERSION,
    .open = null_ops_open,
    .close = null_close,
    .size = null_size,
    .pread = null_pread,
    .flags = null_flags,
    .pwrite = null_pwrite,
    .zero = null_zero,
    .extent = null_extent,
    .truncate = null_truncate,
    .allocate = null_allocate,
};

int null_open(const char *name, struct imgtk_storage **out, struct imgtk_error *err)
{
    void *handle = NULL;
    int status = null_ops_open(name, 0, NULL, &handle, err);
    return status ? status : storage_wrap(&null_ops, handle, name, out, err);
}
