/*
 * Order for a storage that is read or written once, from its beginning to its
 * end. The beginning is kept, so that a format can be probed and its header
 * read again; going forward skips, or fills with zeroes.
 */
#include "storage/sequence.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"

struct sequence {
    pthread_mutex_t lock; /* of what follows, held while reading or writing: the order is all there is; a leaf */
    uint64_t position;    /* bytes taken from or put into the storage */
    bool ended;
    bool keeping; /* nothing beyond the head is read */
    size_t head_length, head_size, head_limit; /* held, allocated, wanted at most */
    unsigned char *head;
    unsigned char *recent; /* a ring: byte i of the storage is at i % SEQUENCE_RECENT; NULL: not frozen */
};

struct sequence *sequence_new(void)
{
    struct sequence *sequence = calloc(1, sizeof(*sequence));
    if (!sequence)
        return NULL;
    pthread_mutex_init(&sequence->lock, NULL);
    sequence->head_limit = SEQUENCE_HEAD;
    return sequence;
}

void sequence_free(struct sequence *sequence)
{
    if (!sequence)
        return;
    pthread_mutex_destroy(&sequence->lock);
    free(sequence->head);
    free(sequence->recent);
    free(sequence);
}

void sequence_keep(struct imgtk_storage *storage, size_t limit)
{
    struct sequence *sequence = storage->sequence;
    pthread_mutex_lock(&sequence->lock);
    sequence->keeping = true;
    sequence->head_limit = limit;
    pthread_mutex_unlock(&sequence->lock);
}

void sequence_go_on(struct imgtk_storage *storage)
{
    struct sequence *sequence = storage->sequence;
    pthread_mutex_lock(&sequence->lock);
    sequence->keeping = false;
    sequence->head_limit = sequence->head_length;
    pthread_mutex_unlock(&sequence->lock);
}

int sequence_freeze(struct imgtk_storage *storage, struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    sequence_go_on(storage);
    pthread_mutex_lock(&sequence->lock);
    sequence->recent = malloc(SEQUENCE_RECENT);
    int status = sequence->recent ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    pthread_mutex_unlock(&sequence->lock);
    return status;
}

/* ---- Reading; with the lock held --------------------------------------------------- */

/* The last `length` bytes before the position are in `bytes`. */
static void remember(struct sequence *sequence, const unsigned char *bytes, size_t length)
{
    size_t kept = length < SEQUENCE_RECENT ? length : SEQUENCE_RECENT;
    bytes += length - kept;
    size_t at = (size_t)((sequence->position - kept) % SEQUENCE_RECENT);
    size_t first = kept < SEQUENCE_RECENT - at ? kept : SEQUENCE_RECENT - at;
    memcpy(sequence->recent + at, bytes, first);
    memcpy(sequence->recent, bytes + first, kept - first);
}

/* Of what came last: up to the position, or nothing when that was too long ago. */
static size_t recall(const struct sequence *sequence, unsigned char *buf, size_t length, uint64_t offset)
{
    if (!sequence->recent || offset >= sequence->position || sequence->position - offset > SEQUENCE_RECENT ||
        offset < sequence->head_length)
        return 0;
    length = (size_t)imgtk_min_u64(length, sequence->position - offset);
    size_t at = (size_t)(offset % SEQUENCE_RECENT);
    size_t first = length < SEQUENCE_RECENT - at ? length : SEQUENCE_RECENT - at;
    memcpy(buf, sequence->recent + at, first);
    memcpy(buf + first, sequence->recent, length - first);
    return length;
}

static int take_bytes(struct imgtk_storage *storage, void *buf, size_t length, size_t *done, struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    *done = 0;
    if (length == 0 || sequence->ended)
        return 0;
    int status = storage->ops.pread(storage->handle, buf, length, sequence->position, done, err);
    if (status == 0 && *done > length)
        status = imgtk_fail(err, IMGTK_EIO, "storage answered %zu bytes to a read of %zu", *done, length);
    if (status) {
        *done = 0;
        return status;
    }
    sequence->position += *done;
    sequence->ended = *done < length;
    if (sequence->recent)
        remember(sequence, buf, *done);
    return 0;
}

static int grow_head(struct sequence *sequence, size_t want, struct imgtk_error *err)
{
    size_t size = sequence->head_size ? sequence->head_size : SEQUENCE_HEAD;
    while (size < want)
        size *= 2;
    if (size == sequence->head_size)
        return 0;
    unsigned char *head = realloc(sequence->head, size);
    if (!head)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the first %zu bytes of a pipe", size);
    sequence->head = head;
    sequence->head_size = size;
    return 0;
}

static int fill_head(struct imgtk_storage *storage, uint64_t end, struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    size_t want = (size_t)imgtk_min_u64(end, sequence->head_limit);
    if (want <= sequence->head_length)
        return 0;
    size_t done = 0;
    int status = grow_head(sequence, want, err);
    if (status)
        return status;
    status = take_bytes(storage, sequence->head + sequence->head_length, want - sequence->head_length, &done, err);
    sequence->head_length += done;
    return status;
}

static int skip_to(struct imgtk_storage *storage, uint64_t offset, struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    unsigned char dropped[16 << 10];
    while (sequence->position < offset && !sequence->ended) {
        size_t done;
        size_t piece = (size_t)imgtk_min_u64(sizeof(dropped), offset - sequence->position);
        int status = take_bytes(storage, dropped, piece, &done, err);
        if (status)
            return status;
    }
    return 0;
}

static int read_in_order(struct imgtk_storage *storage, unsigned char *buf, size_t length, uint64_t offset, size_t *done,
                         struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    if (sequence->keeping && offset + length > sequence->head_limit)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "offset %" PRIu64 " of a pipe is wanted before what lies in front of it",
                          offset);
    int status = fill_head(storage, offset + length, err);
    if (status)
        return status;
    if (offset < sequence->head_length) {
        *done = (size_t)imgtk_min_u64(length, sequence->head_length - offset);
        memcpy(buf, sequence->head + offset, *done);
    }
    *done += recall(sequence, buf + *done, length - *done, offset + *done);
    if (*done == length || (sequence->ended && offset + *done >= sequence->position))
        return 0;
    if (offset + *done < sequence->position)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a pipe is read once, in order: offset %" PRIu64 " is wanted after %"
                          PRIu64, offset + *done, sequence->position);
    status = skip_to(storage, offset + *done, err);
    size_t more = 0;
    if (status == 0)
        status = take_bytes(storage, buf + *done, length - *done, &more, err);
    *done += more;
    return status;
}

int sequence_read(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset, size_t *done,
                  struct imgtk_error *err)
{
    *done = 0;
    pthread_mutex_lock(&storage->sequence->lock);
    int status = read_in_order(storage, buf, length, offset, done, err);
    pthread_mutex_unlock(&storage->sequence->lock);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------- */

/* What is left out reads as zeroes in a new file, and so it does here. */
static int advance_to(struct imgtk_storage *storage, uint64_t offset, struct imgtk_error *err)
{
    struct sequence *sequence = storage->sequence;
    uint64_t from = sequence->position;
    if (offset < from)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a pipe is written once, in order: offset %" PRIu64 " comes after %"
                          PRIu64, offset, from);
    sequence->position = offset;
    return storage_write_zeroes(storage->ops.pwrite, storage->handle, from, offset - from, err);
}

int sequence_write(struct imgtk_storage *storage, const void *buf, size_t length, uint64_t offset,
                   struct imgtk_error *err)
{
    pthread_mutex_lock(&storage->sequence->lock);
    int status = advance_to(storage, offset, err);
    if (status == 0)
        status = storage->ops.pwrite(storage->handle, buf, length, offset, err);
    if (status == 0)
        storage->sequence->position += length;
    pthread_mutex_unlock(&storage->sequence->lock);
    return status;
}

int sequence_zero(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    pthread_mutex_lock(&storage->sequence->lock);
    int status = advance_to(storage, offset, err);
    if (status == 0)
        status = advance_to(storage, offset + length, err);
    pthread_mutex_unlock(&storage->sequence->lock);
    return status;
}
