/* Moving bytes: whole blocks in requests that are on their way together, and the parts of blocks around them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "nbd.h"

enum { FLIGHT = 32, TOGETHER = 4, ZERO_LENGTH = 1 << 30 };

struct nbd_connection *nbd_choose_connection(struct nbd *nbd)
{
    return &nbd->connections[atomic_fetch_add_explicit(&nbd->next, 1, memory_order_relaxed) % nbd->count];
}

int nbd_fail_request(const struct nbd_request *request, struct imgtk_error *err)
{
    static const char *const what[] = { "read", "write", "zero", "flush", "ask about" };
    if (request->error == ECANCELED)
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    if (request->error == ENOTCONN)
        return imgtk_fail(err, IMGTK_EIO, "the connection was lost at offset %" PRIu64, request->offset);
    if (request->error == ETIMEDOUT)
        return imgtk_fail(err, IMGTK_EIO, "the server does not answer any more, at offset %" PRIu64 " (see --timeout)",
                          request->offset);
    if (request->error == EPROTO)
        return imgtk_fail(err, IMGTK_EIO, "the server's answer is not one of the protocol, at offset %" PRIu64,
                          request->offset);
    return imgtk_fail_errno(err, request->error, "the server could not %s %" PRIu64 " bytes at offset %" PRIu64,
                            what[request->command], request->length, request->offset);
}

/* ---- Whole blocks ------------------------------------------------------------- */

/* What all requests of one call have in common. */
struct transfer {
    enum nbd_command command;
    uint32_t flags;
    uint64_t piece; /* bytes of a request at most */
};

/* Neighbours travel on one connection: each that takes part has to be woken. */
static void send_all(struct nbd *nbd, struct nbd_request *requests, size_t count)
{
    for (size_t i = 0; i < count; i += TOGETHER)
        nbd_connection_send(nbd_choose_connection(nbd), &requests[i], count - i < TOGETHER ? count - i : TOGETHER);
}

/* As many requests as may fly at once; *moved is what they cover. */
static int move_flight(struct nbd *nbd, const struct transfer *transfer, char *buf, uint64_t length, uint64_t offset,
                       uint64_t *moved, struct imgtk_error *err)
{
    struct nbd_request requests[FLIGHT];
    struct nbd_batch batch;
    size_t count = 0;
    for (*moved = 0; count < FLIGHT && *moved < length; count++) {
        uint64_t now = imgtk_min_u64(length - *moved, transfer->piece);
        requests[count] = (struct nbd_request){
            .command = transfer->command, .buf = buf ? buf + *moved : NULL, .length = now, .offset = offset + *moved,
            .flags = transfer->flags, .batch = &batch };
        *moved += now;
    }
    nbd_batch_begin(&batch, count);
    send_all(nbd, requests, count);
    nbd_batch_wait(&batch);
    for (size_t i = 0; i < count; i++)
        if (requests[i].error)
            return nbd_fail_request(&requests[i], err);
    return 0;
}

static int move(struct nbd *nbd, const struct transfer *transfer, void *buf, uint64_t length, uint64_t offset,
                struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t done = 0, moved; !status && done < length; done += moved)
        status = move_flight(nbd, transfer, buf ? (char *)buf + done : NULL, length - done, offset + done, &moved, err);
    return status;
}

static int read_blocks(struct nbd *nbd, void *buf, uint64_t length, uint64_t offset, struct imgtk_error *err)
{
    const struct transfer transfer = { .command = NBD_READ, .piece = nbd->request_size };
    return move(nbd, &transfer, buf, length, offset, err);
}

/* What a server without FUA has written is flushed, call by call. */
static int change_blocks(struct nbd *nbd, struct transfer transfer, const void *buf, uint64_t length, uint64_t offset,
                         struct imgtk_error *err)
{
    bool fua = nbd->write_through && nbd->can_fua;
    if (fua)
        transfer.flags |= LIBNBD_CMD_FLAG_FUA;
    int status = move(nbd, &transfer, (void *)(uintptr_t)buf, length, offset, err);
    return status || fua || !nbd->write_through ? status : nbd_ops_flush(nbd, err);
}

static int write_blocks(struct nbd *nbd, const void *buf, uint64_t length, uint64_t offset, struct imgtk_error *err)
{
    const struct transfer transfer = { .command = NBD_WRITE, .piece = nbd->request_size };
    return change_blocks(nbd, transfer, buf, length, offset, err);
}

/* ---- Parts of blocks ------------------------------------------------------------ */

static bool is_aligned(const struct nbd *nbd, uint64_t offset, uint64_t length)
{
    return (offset | length) % nbd->block == 0;
}

/* The blocks around a range, read into memory of their own. */
struct around {
    uint64_t start;
    size_t length;
    uint8_t *bytes;
};

static int read_around(struct nbd *nbd, uint64_t offset, size_t length, struct around *out, struct imgtk_error *err)
{
    out->start = imgtk_round_down(offset, nbd->block);
    out->length = (size_t)(imgtk_min_u64(nbd->size, imgtk_round_up(offset + length, nbd->block)) - out->start);
    out->bytes = malloc(out->length);
    if (!out->bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = read_blocks(nbd, out->bytes, out->length, out->start, err);
    if (status)
        free(out->bytes);
    return status;
}

static int write_part(struct nbd *nbd, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct around around;
    pthread_mutex_lock(&nbd->partial);
    int status = read_around(nbd, offset, length, &around, err);
    if (!status) {
        memcpy(around.bytes + (offset - around.start), buf, length);
        status = write_blocks(nbd, around.bytes, around.length, around.start, err);
        free(around.bytes);
    }
    pthread_mutex_unlock(&nbd->partial);
    return status;
}

/* ---- Ops ------------------------------------------------------------------------- */

int nbd_ops_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    *done = 0;
    if (offset >= nbd->size)
        return 0;
    length = (size_t)imgtk_min_u64(length, nbd->size - offset);
    int status;
    if (is_aligned(nbd, offset, length)) {
        status = read_blocks(nbd, buf, length, offset, err);
    } else {
        struct around around;
        status = read_around(nbd, offset, length, &around, err);
        if (!status) {
            memcpy(buf, around.bytes + (offset - around.start), length);
            free(around.bytes);
        }
    }
    *done = status ? 0 : length;
    return status;
}

static int check_room(const struct nbd *nbd, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (imgtk_range_fits(offset, length, nbd->size))
        return 0;
    return imgtk_fail(err, IMGTK_ENOSPACE,
                      "%" PRIu64 " bytes at offset %" PRIu64 " do not fit: the export has %" PRIu64, length,
                      offset, nbd->size);
}

int nbd_ops_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    int status = check_room(nbd, offset, length, err);
    if (status)
        return status;
    return is_aligned(nbd, offset, length) ? write_blocks(nbd, buf, length, offset, err)
                                           : write_part(nbd, buf, length, offset, err);
}

static int write_zeroes(struct nbd *nbd, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    static const uint8_t zeroes[256 << 10];
    int status = 0;
    while (!status && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, sizeof(zeroes));
        status = nbd_ops_pwrite(nbd, zeroes, piece, offset, err);
        offset += piece;
        length -= piece;
    }
    return status;
}

/* Never by trim: what was trimmed may read as anything. */
int nbd_ops_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    const struct transfer transfer = { .command = NBD_ZERO,
                                       .piece = imgtk_round_down(ZERO_LENGTH, nbd->block),
                                       .flags = flags & IMGTK_ZERO_ALLOCATE ? LIBNBD_CMD_FLAG_NO_HOLE : 0 };
    int status = check_room(nbd, offset, length, err);
    if (status)
        return status;
    if (!nbd->can_zero || !is_aligned(nbd, offset, length))
        return write_zeroes(nbd, offset, length, err);
    return change_blocks(nbd, transfer, NULL, length, offset, err);
}

/* What one connection flushes covers all where the server allows several, which it says together. */
int nbd_ops_flush(void *handle, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    if (!nbd->can_flush)
        return 0;
    struct nbd_batch batch;
    struct nbd_request request = { .command = NBD_FLUSH, .batch = &batch };
    nbd_batch_begin(&batch, 1);
    nbd_connection_send(&nbd->connections[0], &request, 1);
    nbd_batch_wait(&batch);
    return request.error ? nbd_fail_request(&request, err) : 0;
}
