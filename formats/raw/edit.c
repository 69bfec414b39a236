/* Changing a raw image in place: bytes are written where they belong, only a smaller size waits for the end. */
#include "imgtk/bytes.h"
#include "raw.h"

int raw_edit_begin(void *handle, struct imgtk_edit *edit, struct imgtk_error *err)
{
    struct raw *raw = handle;
    (void)err;
    raw->new_size = raw->size;
    edit->unit = RAW_SECTOR;
    return 0;
}

/* The padding of the last sector becomes a part of the file when it is written. */
int raw_edit_write(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct raw *raw = handle;
    return imgtk_storage_pwrite(raw->file, buf, length, raw->base + offset, err);
}

int raw_edit_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    struct raw *raw = handle;
    return imgtk_storage_zero(raw->file, raw->base + offset, length, 0, err);
}

int raw_edit_resize(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct raw *raw = handle;
    if (!raw->to_the_end)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a disk that is a part of its file cannot be resized");
    if (size > INT64_MAX - RAW_SECTOR - raw->base)
        return imgtk_fail(err, IMGTK_ELIMIT, "size %llu exceeds the largest disk", (unsigned long long)size);
    raw->new_size = size;
    return size > raw->present ? imgtk_storage_truncate(raw->file, raw->base + size, err) : 0;
}

static int reserve(struct raw *raw, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err)
{
    uint64_t start = raw->base + offset, length = raw->new_size - offset;
    if (how == IMGTK_ALLOCATE_METADATA)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "raw has no metadata that could be preallocated: use falloc or full");
    int status = imgtk_storage_allocate(raw->file, start, length, err);
    if (status == IMGTK_EUNSUPPORTED && how == IMGTK_ALLOCATE_FULL)
        status = imgtk_storage_zero(raw->file, start, length, IMGTK_ZERO_ALLOCATE, err);
    return status;
}

/* A disk that cannot have the space keeps its size. */
int raw_edit_allocate(void *handle, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err)
{
    struct raw *raw = handle;
    int status = reserve(raw, offset, how, err);
    if (status != 0)
        imgtk_storage_truncate(raw->file, raw->base + raw->present, NULL);
    return status;
}

/* What was written beyond the file's end has made it longer. */
static int learn_size(struct raw *raw, struct imgtk_error *err)
{
    uint64_t file_size;
    int status = imgtk_storage_size(raw->file, &file_size, err);
    if (status == 0 && raw->to_the_end) {
        raw->present = file_size - raw->base;
        raw->size = imgtk_round_up(raw->present, RAW_SECTOR);
    }
    return status;
}

int raw_edit_commit(void *handle, struct imgtk_error *err)
{
    struct raw *raw = handle;
    int status = 0;
    if (raw->new_size < raw->present)
        status = imgtk_storage_truncate(raw->file, raw->base + raw->new_size, err);
    if (status == 0)
        status = imgtk_storage_flush(raw->file, err);
    return status == 0 ? learn_size(raw, err) : status;
}
