#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "raw.h"

#define ZERO_PIECE 65536u

enum preallocation { PREALLOCATE_OFF, PREALLOCATE_FALLOC, PREALLOCATE_FULL };

static const char *const preallocation_choices[] = { "off", "falloc", "full", NULL };

const struct imgtk_opt raw_create_opts[] = {
    { .name = "preallocation", .type = IMGTK_OPT_CHOICE, .default_text = "off", .choices = preallocation_choices,
      .help = "reserve space: off, falloc (reserved), full (reserved or written with zeroes)" },
    { .name = NULL },
};

struct raw_writer {
    struct imgtk_storage *file;
    uint64_t size;
    bool stream;
    uint64_t position; /* stream: bytes that have gone out; guarded by the turns */
};

static enum preallocation preallocation_of(const struct imgtk_create *args)
{
    const char *text = args->opts ? imgtk_opts_text(args->opts, "preallocation") : "off";
    if (strcmp(text, "full") == 0)
        return PREALLOCATE_FULL;
    return strcmp(text, "falloc") == 0 ? PREALLOCATE_FALLOC : PREALLOCATE_OFF;
}

static void say(struct imgtk_create *args, const char *how)
{
    char line[128];
    snprintf(line, sizeof(line), "preallocation: %s", how);
    args->note(args->note_context, line);
}

/* full is satisfied by reserved space where the file system promises it; where it does not, zeroes are written. */
static int preallocate(struct imgtk_create *args, enum preallocation mode, struct imgtk_error *err)
{
    if (mode == PREALLOCATE_OFF || args->size == 0)
        return 0;
    int status = IMGTK_EUNSUPPORTED;
    if (!(imgtk_storage_flags(args->file) & IMGTK_STORAGE_FIXED_SIZE))
        status = imgtk_storage_allocate(args->file, 0, args->size, err);
    if (!status) {
        say(args, "one fallocate for the whole disk");
        return 0;
    }
    if (status != IMGTK_EUNSUPPORTED)
        return status;
    if (mode == PREALLOCATE_FALLOC)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "preallocation=falloc: this target cannot reserve space; use full");
    say(args, "zeroes written, the target cannot reserve space");
    return imgtk_storage_zero(args->file, 0, args->size, IMGTK_ZERO_ALLOCATE, err);
}

static int lay_out(struct imgtk_create *args, struct imgtk_error *err)
{
    uint32_t flags = imgtk_storage_flags(args->file);
    uint64_t present = 0;
    int status = imgtk_storage_size(args->file, &present, err);
    if (status)
        return status;
    if (present < args->size && (flags & IMGTK_STORAGE_FIXED_SIZE))
        return imgtk_fail(err, IMGTK_EINVAL, "the target has %llu bytes, the disk needs %llu",
                          (unsigned long long)present, (unsigned long long)args->size);
    if (present < args->size) /* a longer file keeps its tail, as with -n elsewhere */
        status = imgtk_storage_truncate(args->file, args->size, err);
    return status ? status : preallocate(args, preallocation_of(args), err);
}

int raw_create(struct imgtk_create *args, void **writer, struct imgtk_error *err)
{
    bool stream = (args->flags & IMGTK_CREATE_STREAM) != 0;
    if (args->flags & IMGTK_CREATE_COMPRESS)
        return imgtk_fail(err, IMGTK_EINVAL, "raw images cannot be compressed");
    if ((args->flags & IMGTK_CREATE_RESUME) && preallocation_of(args) != PREALLOCATE_OFF)
        return imgtk_fail(err, IMGTK_EINVAL, "a conversion with preallocation cannot be resumed");
    if (stream && preallocation_of(args) != PREALLOCATE_OFF)
        return imgtk_fail(err, IMGTK_EINVAL, "a pipe cannot be preallocated");
    struct raw_writer *raw = calloc(1, sizeof(*raw));
    if (!raw)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    raw->file = args->file;
    raw->size = args->size;
    raw->stream = stream;
    int status = stream ? 0 : lay_out(args, err);
    if (status) {
        free(raw);
        return status;
    }
    args->unit = RAW_SECTOR;
    *writer = raw;
    return 0;
}

/* A pipe has no holes: what lies between two writes goes out as zeroes. */
static int stream_zeroes(struct raw_writer *raw, uint64_t until, struct imgtk_error *err)
{
    static const uint8_t zeroes[ZERO_PIECE];
    while (raw->position < until) {
        size_t piece = (size_t)imgtk_min_u64(until - raw->position, sizeof(zeroes));
        int status = imgtk_storage_pwrite(raw->file, zeroes, piece, raw->position, err);
        if (status)
            return status;
        raw->position += piece;
    }
    return 0;
}

static int stream_write(struct raw_writer *raw, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(write->turn, err);
    if (!status)
        status = stream_zeroes(raw, write->offset, err);
    if (!status)
        status = imgtk_storage_pwrite(raw->file, write->buf, write->length, write->offset, err);
    if (!status) /* without the turn, it is another worker's */
        raw->position = write->offset + write->length;
    imgtk_turn_end(write->turn);
    return status;
}

int raw_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct raw_writer *raw = writer;
    if (raw->stream)
        return stream_write(raw, write, err);
    return imgtk_storage_pwrite(raw->file, write->buf, write->length, write->offset, err);
}

int raw_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct raw_writer *raw = writer;
    (void)turn; /* raw decides no places */
    return raw->stream ? 0 : imgtk_storage_zero(raw->file, offset, length, 0, err);
}

int raw_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err)
{
    struct raw_writer *raw = writer;
    if (raw->stream)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a pipe has no places");
    *file = raw->file;
    *host_offset = write->offset;
    return 0;
}

int raw_finish(void *writer, struct imgtk_error *err)
{
    struct raw_writer *raw = writer;
    return raw->stream ? stream_zeroes(raw, raw->size, err) : 0;
}

void raw_writer_close(void *writer)
{
    free(writer);
}

int raw_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    (void)err;
    *out = (struct imgtk_measure){ .required = args->size, .fully_allocated = args->size, .file_size_known = true,
                                   .file_size = args->size };
    return 0;
}
