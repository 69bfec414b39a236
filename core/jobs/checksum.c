/* The digest of a disk. For the tree one thread at a time walks, and several read and hash. */
#include "checksum.h"

#include <pthread.h>
#include <stdlib.h>

#include "chain/image_internal.h"
#include "imgtk/bytes.h"
#include "modules/registry.h"

#define PIECE (2u << 20)
#define PAGE 4096u /* the kernel copies to pages three times as fast as to malloc() plus 16 */

struct reading {
    struct checksum_pass *pass;
    struct digest_tree *tree;
    pthread_mutex_t in_order; /* held while a piece is taken and read, where the order matters; taken before `lock` */
    pthread_mutex_t lock;     /* everything below */
    struct source_walk *walk;
    uint64_t cursor;          /* what lies before it is read or being read */
    struct imgtk_error error; /* of the worker that failed first */
};

/* What one thread needs. */
struct reader {
    struct reading *reading;
    struct source_walk *walk;
    struct digest_hasher *hasher;
    uint8_t *buffer; /* PIECE bytes */
};

struct piece {
    uint64_t offset, length; /* whole blocks, but at the end of the disk; length 0: there are no more */
    bool is_zero;
};

int checksum_advance(struct checksum_pass *pass, uint64_t done, uint64_t data, struct imgtk_error *err)
{
    pass->progress.done += done;
    pass->progress.copied += data;
    bool stop = pass->tell && pass->tell(pass->tell_context, &pass->progress);
    if (stop || imgtk_cancel_reason(pass->cancel))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    return 0;
}

/* ---- Cutting (under the lock) --------------------------------------------- */

/* The next extent, in whole blocks: one that is zero only in part is data. */
static int look(struct reading *reading, uint64_t offset, struct piece *out, struct imgtk_error *err)
{
    uint64_t end = reading->pass->length;
    struct imgtk_chain_extent found;
    size_t image;
    int status = source_walk_next(reading->walk, offset, end - offset, &found, &image, err);
    if (status)
        return status;
    uint64_t stop = offset + found.extent.length, whole = stop == end ? end : imgtk_round_down(stop, DIGEST_BLOCK);
    bool is_zero = found.extent.kind == IMGTK_EXTENT_ZERO && whole > offset;
    *out = (struct piece){ .offset = offset, .is_zero = is_zero };
    out->length = (is_zero ? whole : imgtk_min_u64(end, imgtk_round_up(stop, DIGEST_BLOCK))) - offset;
    return 0;
}

/* A run of zeroes, however long, or as much data as one thread takes. */
static int next_piece(struct reading *reading, struct piece *out, struct imgtk_error *err)
{
    *out = (struct piece){ .offset = reading->cursor };
    while (reading->cursor < reading->pass->length) {
        struct piece piece;
        int status = look(reading, reading->cursor, &piece, err);
        if (status)
            return status;
        if (out->length > 0 && piece.is_zero)
            return 0;
        uint64_t length = piece.is_zero ? piece.length : imgtk_min_u64(piece.length, PIECE - out->length);
        out->is_zero = piece.is_zero;
        out->length += length;
        reading->cursor += length;
        if (piece.is_zero || out->length == PIECE)
            return 0;
    }
    return 0;
}

static int take_piece(struct reading *reading, struct piece *out, struct imgtk_error *err)
{
    pthread_mutex_lock(&reading->lock);
    int status = next_piece(reading, out, err);
    pthread_mutex_unlock(&reading->lock);
    return status;
}

/* ---- One thread ----------------------------------------------------------- */

static int read_piece(struct reader *reader, const struct piece *piece, struct imgtk_error *err)
{
    if (piece->is_zero || piece->length == 0)
        return 0;
    return source_walk_read(reader->walk, reader->buffer, (size_t)piece->length, piece->offset, err);
}

static int take_and_read(struct reader *reader, struct piece *out, struct imgtk_error *err)
{
    struct reading *reading = reader->reading;
    if (reading->pass->in_order)
        pthread_mutex_lock(&reading->in_order);
    int status = take_piece(reading, out, err);
    if (!status)
        status = read_piece(reader, out, err);
    if (reading->pass->in_order)
        pthread_mutex_unlock(&reading->in_order);
    return status;
}

static int hash_piece(struct reader *reader, const struct piece *piece, struct imgtk_error *err)
{
    if (piece->is_zero)
        return digest_hasher_zero(reader->hasher, piece->offset, piece->length, err);
    return digest_hasher_data(reader->hasher, reader->buffer, piece->offset, piece->length, err);
}

static int count_piece(struct reading *reading, const struct piece *piece, struct imgtk_error *err)
{
    pthread_mutex_lock(&reading->lock);
    int status = checksum_advance(reading->pass, piece->length, piece->is_zero ? 0 : piece->length, err);
    pthread_mutex_unlock(&reading->lock);
    return status;
}

static int read_all(struct reader *reader, struct imgtk_error *err)
{
    struct piece piece = { .length = 1 };
    int status = 0;
    while (!status && piece.length > 0) {
        status = take_and_read(reader, &piece, err);
        if (!status && piece.length > 0)
            status = hash_piece(reader, &piece, err);
        if (!status)
            status = count_piece(reader->reading, &piece, err);
    }
    return status;
}

/* The first failure is the one that is told; it makes the others stop. */
static void report_failure(struct reading *reading, const struct imgtk_error *err)
{
    pthread_mutex_lock(&reading->lock);
    if (!reading->error.status)
        reading->error = *err;
    reading->cursor = reading->pass->length;
    pthread_mutex_unlock(&reading->lock);
}

static void work(void *context)
{
    struct reading *reading = context;
    struct reader reader = { .reading = reading, .buffer = aligned_alloc(PAGE, PIECE) };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = reader.buffer ? 0 : imgtk_fail(&err, IMGTK_ENOMEM, "out of memory");
    if (!status)
        status = source_walk_new(reading->pass->source, true, &reader.walk, &err);
    if (!status)
        status = digest_hasher_new(reading->tree, &reader.hasher, &err);
    if (!status)
        status = read_all(&reader, &err);
    if (status)
        report_failure(reading, &err);
    digest_hasher_free(reader.hasher);
    source_walk_free(reader.walk);
    free(reader.buffer);
}

int checksum_tree(struct checksum_pass *pass, struct digest_tree *tree, struct imgtk_error *err)
{
    struct reading reading = { .pass = pass, .tree = tree };
    int status = source_walk_new(pass->source, true, &reading.walk, err);
    if (status)
        return status;
    pthread_mutex_init(&reading.in_order, NULL);
    pthread_mutex_init(&reading.lock, NULL);
    imgtk_workers_run(pass->workers, work, &reading);
    pthread_mutex_destroy(&reading.lock);
    pthread_mutex_destroy(&reading.in_order);
    source_walk_free(reading.walk);
    if (reading.error.status && err)
        *err = reading.error;
    return reading.error.status;
}

/* ---- The job -------------------------------------------------------------- */

int checksum_disk(struct checksum_pass *pass, const struct imgtk_digest *digest, uint8_t *out, struct imgtk_error *err)
{
    struct digest_tree *tree = NULL;
    int status = digest_tree_new(digest, pass->length, &tree, err);
    if (!status)
        status = checksum_tree(pass, tree, err);
    if (!status)
        status = digest_tree_end(tree, out, err);
    digest_tree_free(tree);
    return status;
}

int imgtk_checksum(struct imgtk_context *context, struct imgtk_checksum *job, struct imgtk_error *err)
{
    const struct imgtk_digest *digest;
    struct source source;
    int status = registry_digest(context, job->algorithm, &digest, err);
    if (!status)
        status = source_init(&source, &job->image, 1, err);
    if (status)
        return status;
    struct checksum_pass pass = {
        .source = &source, .length = source.size, .in_order = source_in_order(&source),
        .workers = job->workers ? job->workers : image_workers(job->image),
        .progress = { .phase = "checksum", .total = source.size },
        .tell = job->progress, .tell_context = job->progress_context, .cancel = job->cancel,
    };
    job->digest.length = digest->length;
    return job->flat ? checksum_flat(&pass, digest, job->digest.bytes, err)
                     : checksum_disk(&pass, digest, job->digest.bytes, err);
}
