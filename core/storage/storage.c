#include "storage/storage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/image.h"
#include "storage/sequence.h"

enum { ZERO_CHUNK = 1 << 20 };

/* ---- Opening and closing -------------------------------------------------- */

static struct imgtk_storage *new_storage(const char *name)
{
    struct imgtk_storage *storage = calloc(1, sizeof(*storage));
    if (storage && !(storage->name = strdup(name))) {
        free(storage);
        return NULL;
    }
    if (storage)
        sem_init(&storage->writers, 0, STORAGE_WRITERS);
    return storage;
}

static void free_storage(struct imgtk_storage *storage)
{
    sequence_free(storage->sequence);
    sem_destroy(&storage->writers);
    free(storage->name);
    free(storage);
}

static int fill(struct imgtk_storage *storage, const struct imgtk_storage_ops *ops, void *handle,
                struct imgtk_error *err)
{
    int status = storage_ops_complete(ops, &storage->ops, err);
    if (status)
        return status;
    storage->handle = handle;
    storage->flags = storage->ops.flags(handle);
    if (storage->flags & IMGTK_STORAGE_SEQUENTIAL)
        storage->sequence = sequence_new();
    if ((storage->flags & IMGTK_STORAGE_SEQUENTIAL) && !storage->sequence)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    return 0;
}

int storage_wrap(const struct imgtk_storage_ops *ops, void *handle, const char *name, struct imgtk_storage **out,
                 struct imgtk_error *err)
{
    *out = NULL;
    struct imgtk_storage *storage = new_storage(name);
    if (!storage) {
        ops->close(handle);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    int status = fill(storage, ops, handle, err);
    if (status) {
        ops->close(handle);
        free_storage(storage);
        return status;
    }
    *out = storage;
    return 0;
}

void imgtk_storage_close(struct imgtk_storage *storage)
{
    if (!storage)
        return;
    if ((storage->flags & IMGTK_STORAGE_WRITABLE) && !storage->committed)
        storage->ops.abandon(storage->handle);
    storage->ops.close(storage->handle);
    free_storage(storage);
}

int imgtk_storage_commit(struct imgtk_storage *storage, bool sync, struct imgtk_error *err)
{
    int status = 0;
    if (storage->ops.commit)
        status = storage->ops.commit(storage->handle, sync, err);
    else if (sync)
        status = storage->ops.flush(storage->handle, err);
    storage->committed = status == 0;
    return status;
}

/* ---- What it is ------------------------------------------------------------ */

const char *imgtk_storage_name(const struct imgtk_storage *storage)
{
    return storage->name;
}

uint32_t imgtk_storage_flags(const struct imgtk_storage *storage)
{
    return storage->flags;
}

int imgtk_storage_size(struct imgtk_storage *storage, uint64_t *out, struct imgtk_error *err)
{
    *out = 0;
    int status = storage->ops.size(storage->handle, out, err);
    if (status == 0 && *out > INT64_MAX)
        return imgtk_fail(err, IMGTK_ELIMIT, "a size of %" PRIu64 " bytes is beyond the limit of %" PRId64, *out,
                          INT64_MAX);
    return status;
}

int imgtk_storage_allocated(struct imgtk_storage *storage, uint64_t *out, struct imgtk_error *err)
{
    if (storage->ops.allocated)
        return storage->ops.allocated(storage->handle, out, err);
    return imgtk_storage_size(storage, out, err);
}

/* ---- Reading ---------------------------------------------------------------- */

int imgtk_storage_pread_some(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset,
                             size_t *done, struct imgtk_error *err)
{
    *done = 0;
    if (length == 0 || offset >= INT64_MAX)
        return 0;
    length = (size_t)imgtk_min_u64(length, INT64_MAX - offset);
    int status = metadata_charge(storage->metadata, length, err);
    if (status)
        return status;
    if (storage->sequence)
        return sequence_read(storage, buf, length, offset, done, err);
    status = storage->ops.pread(storage->handle, buf, length, offset, done, err);
    if (status == 0 && *done > length)
        return imgtk_fail(err, IMGTK_EIO, "storage answered %zu bytes to a read of %zu", *done, length);
    return status;
}

static int fail_short(struct imgtk_storage *storage, size_t length, uint64_t offset, size_t done,
                      struct imgtk_error *err)
{
    uint64_t end = offset + done;
    if (done == 0 && !(storage->flags & IMGTK_STORAGE_SEQUENTIAL) && storage->ops.size(storage->handle, &end, NULL))
        end = offset;
    return imgtk_fail(err, IMGTK_ECORRUPT, "%zu bytes at offset %" PRIu64 " are needed, but the file ends at byte %"
                      PRIu64, length, offset, end);
}

int imgtk_storage_pread(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset,
                        struct imgtk_error *err)
{
    size_t done;
    int status = imgtk_storage_pread_some(storage, buf, length, offset, &done, err);
    if (status == 0 && done < length)
        return fail_short(storage, length, offset, done, err);
    return status;
}

static int check_range(uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (imgtk_range_fits(offset, length, INT64_MAX))
        return 0;
    return imgtk_fail(err, IMGTK_EINVAL, "%" PRIu64 " bytes at offset %" PRIu64 " are beyond the limit of %" PRId64,
                      length, offset, INT64_MAX);
}

static int check_asked(uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (length == 0)
        return imgtk_fail(err, IMGTK_EINVAL, "an extent of no bytes was asked for");
    return check_range(offset, length, err);
}

static int clip_answer(uint64_t *answered, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (*answered == 0)
        return imgtk_fail(err, IMGTK_EIO, "storage answered an empty extent at offset %" PRIu64, offset);
    *answered = imgtk_min_u64(*answered, length);
    return 0;
}

int imgtk_storage_extent(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_range *out,
                         struct imgtk_error *err)
{
    int status = check_asked(offset, length, err);
    if (!status)
        status = storage->ops.extent(storage->handle, offset, length, out, err);
    return status ? status : clip_answer(&out->length, offset, length, err);
}

int imgtk_storage_depth(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_depth *out,
                        struct imgtk_error *err)
{
    int status = check_asked(offset, length, err);
    if (!status)
        status = storage->ops.depth(storage->handle, offset, length, out, err);
    return status ? status : clip_answer(&out->length, offset, length, err);
}

/* ---- Writing ---------------------------------------------------------------- */

static int check_writable(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (!(storage->flags & IMGTK_STORAGE_WRITABLE))
        return imgtk_fail(err, IMGTK_EINVAL, "it is open for reading only");
    int status = check_range(offset, length, err);
    return status ? status : output_charge(&storage->output, offset + length, err);
}

void storage_begin_write(struct imgtk_storage *storage)
{
    if (storage->flags & IMGTK_STORAGE_ONE_WRITER)
        while (sem_wait(&storage->writers) < 0 && errno == EINTR)
            ;
}

void storage_end_write(struct imgtk_storage *storage)
{
    if (storage->flags & IMGTK_STORAGE_ONE_WRITER)
        sem_post(&storage->writers);
}

int imgtk_storage_pwrite(struct imgtk_storage *storage, const void *buf, size_t length, uint64_t offset,
                         struct imgtk_error *err)
{
    int status = check_writable(storage, offset, length, err);
    if (status || length == 0)
        return status;
    if (storage->sequence)
        return sequence_write(storage, buf, length, offset, err);
    storage_begin_write(storage);
    status = storage->ops.pwrite(storage->handle, buf, length, offset, err);
    storage_end_write(storage);
    return status;
}

int storage_write_zeroes(storage_pwrite_fn write, void *handle, uint64_t offset, uint64_t length,
                         struct imgtk_error *err)
{
    if (length == 0)
        return 0;
    size_t chunk = (size_t)imgtk_min_u64(length, ZERO_CHUNK);
    void *zeroes = calloc(1, chunk);
    if (!zeroes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu bytes of zeroes", chunk);
    int status = 0;
    while (status == 0 && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, chunk);
        status = write(handle, zeroes, piece, offset, err);
        offset += piece;
        length -= piece;
    }
    free(zeroes);
    return status;
}

int imgtk_storage_zero(struct imgtk_storage *storage, uint64_t offset, uint64_t length, uint32_t flags,
                       struct imgtk_error *err)
{
    int status = check_writable(storage, offset, length, err);
    if (status || length == 0)
        return status;
    if (storage->sequence)
        return sequence_zero(storage, offset, length, err);
    storage_begin_write(storage);
    if (storage->ops.zero)
        status = storage->ops.zero(storage->handle, offset, length, flags, err);
    else
        status = storage_write_zeroes(storage->ops.pwrite, storage->handle, offset, length, err);
    storage_end_write(storage);
    return status;
}

int imgtk_storage_truncate(struct imgtk_storage *storage, uint64_t size, struct imgtk_error *err)
{
    int status = check_writable(storage, 0, size, err);
    if (status)
        return status;
    if (storage->sequence)
        return sequence_zero(storage, size, 0, err); /* up to its size; what was written cannot be taken back */
    return storage->ops.truncate(storage->handle, size, err);
}

void imgtk_storage_drop_cache(struct imgtk_storage *storage)
{
    if (storage->ops.drop_cache)
        storage->ops.drop_cache(storage->handle);
}

void imgtk_storage_write_through(struct imgtk_storage *storage)
{
    if (storage->ops.write_through)
        storage->ops.write_through(storage->handle);
}

void imgtk_storage_will_append(struct imgtk_storage *storage)
{
    if (storage->ops.will_append)
        storage->ops.will_append(storage->handle);
}

int imgtk_storage_flush(struct imgtk_storage *storage, struct imgtk_error *err)
{
    return storage->ops.flush(storage->handle, err);
}

int imgtk_storage_allocate(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    int status = check_writable(storage, offset, length, err);
    if (status || length == 0)
        return status;
    return storage->ops.allocate(storage->handle, offset, length, err);
}
