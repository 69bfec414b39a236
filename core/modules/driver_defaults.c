/* What a driver does that leaves an optional op out. */
#include <string.h>

#include "registry.h"

static int extent_all_data(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                           struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)err;
    *out = (struct imgtk_extent){ .length = length, .kind = IMGTK_EXTENT_DATA };
    return 0;
}

static int backing_none(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    (void)handle, (void)err;
    memset(out, 0, sizeof(*out));
    return 0;
}

static int identity_none(void *handle, char out[64], struct imgtk_error *err)
{
    (void)handle, (void)err;
    out[0] = '\0';
    return 0;
}

static int info_nothing(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    (void)handle, (void)out, (void)err;
    return 0;
}

static int check_unsupported(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    (void)handle, (void)check;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "This image format does not support checks");
}

static int never_in_order(void *handle, bool *out, struct imgtk_error *err)
{
    (void)handle, (void)err;
    *out = false;
    return 0;
}

static int create_unsupported(struct imgtk_create *args, void **writer, struct imgtk_error *err)
{
    (void)args, (void)writer;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format can be read but not written");
}

static int write_unsupported(void *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    (void)writer, (void)write;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format can be read but not written");
}

static int zero_nothing(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                        struct imgtk_error *err)
{
    (void)writer, (void)offset, (void)length, (void)turn, (void)err;
    return 0;
}

static int finish_nothing(void *writer, struct imgtk_error *err)
{
    (void)writer, (void)err;
    return 0;
}

static void writer_close_nothing(void *writer)
{
    (void)writer;
}

static int measure_unsupported(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    (void)args, (void)out;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "This image format does not support measure");
}

static int place_unsupported(void *writer, const struct imgtk_write *write, struct imgtk_storage **file,
                             uint64_t *host_offset, struct imgtk_error *err)
{
    (void)writer, (void)write, (void)file, (void)host_offset;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format has no place for a plain copy");
}

/* ---- Editing ---------------------------------------------------------------- */

static int edit_begin_unsupported(void *handle, struct imgtk_edit *edit, struct imgtk_error *err)
{
    (void)handle, (void)edit;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format cannot be changed in place");
}

static int edit_write_unsupported(void *handle, const void *buf, size_t length, uint64_t offset,
                                  struct imgtk_error *err)
{
    (void)handle, (void)buf, (void)length, (void)offset;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format cannot be written in place");
}

static int edit_zero_unsupported(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    return edit_write_unsupported(handle, NULL, (size_t)length, offset, err);
}

static int edit_empty_unsupported(void *handle, struct imgtk_error *err)
{
    (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format cannot be emptied");
}

static int edit_resize_unsupported(void *handle, uint64_t size, struct imgtk_error *err)
{
    (void)handle, (void)size;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format cannot be resized");
}

static int edit_backing_unsupported(void *handle, const char *name, const char *format, struct imgtk_error *err)
{
    (void)handle, (void)name, (void)format;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the backing file of this format cannot be changed");
}

static int edit_snapshot_unsupported(void *handle, const struct imgtk_snapshot_change *change, struct imgtk_error *err)
{
    (void)handle, (void)change;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this format has no internal snapshots");
}

static int edit_allocate_unsupported(void *handle, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err)
{
    (void)handle, (void)offset, (void)how;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "nothing can be preallocated in this format when it grows");
}

static int edit_commit_nothing(void *handle, struct imgtk_error *err)
{
    (void)handle, (void)err;
    return 0;
}

static void complete_editing(struct imgtk_driver *out)
{
    if (!out->edit_begin)
        out->edit_begin = edit_begin_unsupported;
    if (!out->edit_write)
        out->edit_write = edit_write_unsupported;
    if (!out->edit_zero)
        out->edit_zero = edit_zero_unsupported;
    if (!out->edit_empty)
        out->edit_empty = edit_empty_unsupported;
    if (!out->edit_resize)
        out->edit_resize = edit_resize_unsupported;
    if (!out->edit_backing)
        out->edit_backing = edit_backing_unsupported;
    if (!out->edit_snapshot)
        out->edit_snapshot = edit_snapshot_unsupported;
    if (!out->edit_allocate)
        out->edit_allocate = edit_allocate_unsupported;
    if (!out->edit_commit)
        out->edit_commit = edit_commit_nothing;
}

static int require_op(bool present, const char *op, struct imgtk_error *err)
{
    return present ? 0 : imgtk_fail(err, IMGTK_EINVAL, "missing op '%s'", op);
}

int driver_complete(const struct imgtk_driver *from, struct imgtk_driver *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    if (from->struct_size < offsetof(struct imgtk_driver, extent))
        return imgtk_fail(err, IMGTK_EINVAL, "its ops table has %zu bytes, too few for the required ops",
                          from->struct_size);
    memcpy(out, from, from->struct_size < sizeof(*out) ? from->struct_size : sizeof(*out));
    out->struct_size = sizeof(*out);

    int status = require_op(out->name, "name", err);
    if (!status)
        status = require_op(out->probe, "probe", err);
    if (!status)
        status = require_op(out->open, "open", err);
    if (!status)
        status = require_op(out->close, "close", err);
    if (!status)
        status = require_op(out->size, "size", err);
    if (!status)
        status = require_op(out->read, "read", err);
    if (!status && out->create) /* a driver that creates must also be able to write */
        status = require_op(out->write, "write", err);
    if (!status && out->edit_begin) /* what is changed must also take effect */
        status = require_op(out->edit_commit, "edit_commit", err);
    if (!status && out->prepare) { /* what is prepared must come to an end */
        status = require_op(out->write_prepared, "write_prepared", err);
        if (!status)
            status = require_op(out->discard, "discard", err);
    }
    if (status)
        return status;

    if (!out->description)
        out->description = "";
    if (!out->version)
        out->version = "";
    if (!out->extent)
        out->extent = extent_all_data;
    if (!out->backing)
        out->backing = backing_none;
    if (!out->identity)
        out->identity = identity_none;
    if (!out->info)
        out->info = info_nothing;
    if (!out->check)
        out->check = check_unsupported;
    if (!out->in_order)
        out->in_order = never_in_order;
    if (!out->create)
        out->create = create_unsupported;
    if (!out->write)
        out->write = write_unsupported;
    if (!out->zero)
        out->zero = zero_nothing;
    if (!out->finish)
        out->finish = finish_nothing;
    if (!out->writer_close)
        out->writer_close = writer_close_nothing;
    if (!out->measure)
        out->measure = measure_unsupported;
    if (!out->place)
        out->place = place_unsupported;
    complete_editing(out);
    return 0;
}

bool imgtk_driver_can_write(const struct imgtk_driver *driver)
{
    return driver->create != create_unsupported;
}

bool imgtk_driver_can_check(const struct imgtk_driver *driver)
{
    return driver->check != check_unsupported;
}

bool imgtk_driver_can_edit(const struct imgtk_driver *driver)
{
    return driver->edit_begin != edit_begin_unsupported;
}
