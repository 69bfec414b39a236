/* What stands in for the ops that a storage lacks. */
#include <inttypes.h>
#include <string.h>

#include "storage/storage.h"

static uint32_t default_flags(void *handle)
{
    (void)handle;
    return 0;
}

static int default_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    (void)handle, (void)buf, (void)length, (void)offset;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this kind of storage cannot be written");
}

static int default_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out,
                          struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)err;
    out->length = length;
    out->kind = IMGTK_RANGE_DATA;
    return 0;
}

static int default_depth(void *handle, uint64_t offset, uint64_t length, struct imgtk_depth *out,
                         struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)err;
    *out = (struct imgtk_depth){ .length = length, .depth = 1 };
    return 0;
}

static int default_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this kind of storage cannot be resized to %" PRIu64 " bytes", size);
}

static int default_flush(void *handle, struct imgtk_error *err)
{
    (void)handle, (void)err;
    return 0;
}

static int default_fd(void *handle)
{
    (void)handle;
    return -1;
}

static void default_abandon(void *handle)
{
    (void)handle;
}

static const char *default_version_of(void *handle)
{
    (void)handle;
    return NULL;
}

static uint64_t default_spool_limit(void *handle)
{
    (void)handle;
    return UINT64_MAX;
}

static int default_allocate(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)length;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this kind of storage cannot reserve space");
}

static const char *missing_op(const struct imgtk_storage_ops *ops)
{
    if (!ops->name)
        return "name";
    if (!ops->open && !ops->open_cancellable)
        return "open";
    if (!ops->close)
        return "close";
    if (!ops->size)
        return "size";
    return ops->pread ? NULL : "pread";
}

int storage_ops_complete(const struct imgtk_storage_ops *ops, struct imgtk_storage_ops *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    size_t size = ops->struct_size;
    memcpy(out, ops, size < sizeof(*out) ? size : sizeof(*out));
    const char *missing = missing_op(out);
    if (missing)
        return imgtk_fail(err, IMGTK_EINVAL, "storage module lacks the required member '%s'", missing);
    out->struct_size = sizeof(*out);
    out->flags = out->flags ? out->flags : default_flags;
    out->pwrite = out->pwrite ? out->pwrite : default_pwrite;
    out->extent = out->extent ? out->extent : default_extent;
    out->depth = out->depth ? out->depth : default_depth;
    out->truncate = out->truncate ? out->truncate : default_truncate;
    out->flush = out->flush ? out->flush : default_flush;
    out->fd = out->fd ? out->fd : default_fd;
    out->abandon = out->abandon ? out->abandon : default_abandon;
    out->allocate = out->allocate ? out->allocate : default_allocate;
    out->version_of = out->version_of ? out->version_of : default_version_of;
    out->spool_limit = out->spool_limit ? out->spool_limit : default_spool_limit;
    /* The others' defaults call other ops or do nothing: see the imgtk_storage_ calls. */
    return 0;
}
