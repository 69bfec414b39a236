/*
 * raw: the bytes of the disk and nothing else. Part of core, because it is what
 * an image is when nothing recognises it.
 */
#include "raw.h"

#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "modules/registry.h"

static const struct imgtk_opt raw_open_opts[] = {
    { .name = "offset", .type = IMGTK_OPT_SIZE, .default_text = "0", .help = "where the disk begins in the file" },
    { .name = "size", .type = IMGTK_OPT_SIZE, .help = "how long the disk is (default: to the end of the file)" },
    { .name = NULL },
};

static enum imgtk_probe_result raw_probe(const struct imgtk_probe *probe)
{
    (void)probe;
    return IMGTK_PROBE_NO; /* raw is what is left, never recognised */
}

/* Of a pipe the size is mostly not known before its end: the user's word counts, and a pipe that ends early is an error. */
static int ask_size(const struct raw *raw, const struct imgtk_open *args, uint64_t *out, struct imgtk_error *err)
{
    bool told = args->opts && imgtk_opts_given(args->opts, "size");
    *out = INT64_MAX;
    bool is_pipe = (imgtk_storage_flags(raw->file) & IMGTK_STORAGE_SEQUENTIAL) != 0;
    return is_pipe && told ? 0 : imgtk_storage_size(raw->file, out, err);
}

static int locate(struct raw *raw, const struct imgtk_open *args, struct imgtk_error *err)
{
    uint64_t file_size;
    int status = ask_size(raw, args, &file_size, err);
    if (status)
        return status;
    raw->base = args->opts ? imgtk_opts_number(args->opts, "offset") : 0;
    if (raw->base > file_size)
        return imgtk_fail(err, IMGTK_EINVAL, "offset %llu is beyond the end of the file at %llu",
                          (unsigned long long)raw->base, (unsigned long long)file_size);
    raw->present = file_size - raw->base;
    raw->to_the_end = !args->opts || !imgtk_opts_given(args->opts, "size");
    if (!raw->to_the_end) {
        uint64_t wanted = imgtk_opts_number(args->opts, "size");
        if (wanted > raw->present)
            return imgtk_fail(err, IMGTK_EINVAL, "size %llu is more than the %llu bytes that the file has from offset %llu",
                              (unsigned long long)wanted, (unsigned long long)raw->present,
                              (unsigned long long)raw->base);
        raw->present = wanted;
    }
    if (raw->present > INT64_MAX - RAW_SECTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "size %llu exceeds the largest disk", (unsigned long long)raw->present);
    raw->size = imgtk_round_up(raw->present, RAW_SECTOR);
    return 0;
}

static int raw_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    if (args->snapshot)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "raw images have no snapshots");
    struct raw *raw = calloc(1, sizeof(*raw));
    if (!raw)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    raw->file = args->file;
    int status = locate(raw, args, err);
    if (status) {
        free(raw);
        return status;
    }
    *handle = raw;
    return 0;
}

static void raw_close(void *handle)
{
    free(handle);
}

static uint64_t raw_size(void *handle)
{
    return ((const struct raw *)handle)->size;
}

static int raw_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct raw *raw = handle;
    size_t stored = offset < raw->present ? (size_t)imgtk_min_u64(length, raw->present - offset) : 0;
    memset((uint8_t *)buf + stored, 0, length - stored);
    return stored ? imgtk_storage_pread(raw->file, buf, stored, raw->base + offset, err) : 0;
}

static int raw_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                      struct imgtk_error *err)
{
    struct raw *raw = handle;
    *out = (struct imgtk_extent){ .flags = IMGTK_EXTENT_PLAIN, .file = raw->file, .host_offset = raw->base + offset };
    if (offset >= raw->present) { /* the padding of the last sector */
        out->kind = IMGTK_EXTENT_ZERO;
        out->length = raw->size - offset;
        return 0;
    }
    struct imgtk_range range;
    uint64_t wanted = imgtk_min_u64(length, raw->present - offset);
    int status = imgtk_storage_extent(raw->file, out->host_offset, wanted, &range, err);
    if (status)
        return status;
    out->kind = range.kind == IMGTK_RANGE_ZERO ? IMGTK_EXTENT_ZERO : IMGTK_EXTENT_DATA;
    out->length = range.length;
    return 0;
}

static int raw_in_order(void *handle, bool *out, struct imgtk_error *err)
{
    (void)handle, (void)err;
    *out = true;
    return 0;
}

/* ---- The driver --------------------------------------------------------- */

static const char *const raw_suffixes[] = { "raw", "img", NULL };

const struct imgtk_driver raw_driver = {
    .struct_size = sizeof(struct imgtk_driver),
    .name = "raw",
    .description = "the bytes of the disk and nothing else",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_NO_PROBE_WRITE | IMGTK_DRIVER_BYTES_MAY_CHANGE |
             IMGTK_DRIVER_FIXED_PLACES | IMGTK_DRIVER_RESUME | IMGTK_DRIVER_STREAM_READ,
    .suffixes = raw_suffixes,
    .open_opts = raw_open_opts,
    .create_opts = raw_create_opts,
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .size = raw_size,
    .read = raw_read,
    .extent = raw_extent,
    .in_order = raw_in_order,
    .create = raw_create,
    .write = raw_write,
    .zero = raw_zero,
    .finish = raw_finish,
    .writer_close = raw_writer_close,
    .measure = raw_measure,
    .place = raw_place,
    .edit_begin = raw_edit_begin,
    .edit_write = raw_edit_write,
    .edit_zero = raw_edit_zero,
    .edit_resize = raw_edit_resize,
    .edit_commit = raw_edit_commit,
    .edit_allocate = raw_edit_allocate,
};
