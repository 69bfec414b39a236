/* NBD exports as storage. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/driver.h"
#include "nbd.h"

enum { FLIGHT = 32, ZERO_LENGTH = 1 << 30 };
#define STATUS_LENGTH ((UINT64_C(1) << 32) - NBD_MAX_BLOCK) /* the protocol counts in 32 bits */

struct nbd {
    struct nbd_connection *connections;
    unsigned count;
    atomic_uint next;                 /* the connection that the next request takes */
    bool writable, has_extents, can_zero, can_flush;
    uint64_t size;
    uint32_t block;                   /* offsets and lengths are multiples of it */
    uint32_t request_size;            /* larger calls are cut */
    pthread_mutex_t partial;          /* held while a part of a block is rewritten */
    pthread_mutex_t lock;             /* of `status`; a leaf */
    struct nbd_status status;         /* the last answer */
    atomic_bool no_status;            /* the server has refused to tell */
};

static const struct imgtk_opt options[] = {
    { .name = "connections", .type = IMGTK_OPT_UINT, .default_text = "4", .min = 1, .max = NBD_MAX_CONNECTIONS,
      .help = "Connections at once, where the server allows several" },
    { .name = "requests", .type = IMGTK_OPT_UINT, .default_text = "64", .min = 1, .max = 1024,
      .help = "Requests on their way at once, per connection" },
    { .name = "request-size", .type = IMGTK_OPT_SIZE, .default_text = "256k", .min = 4096, .max = 32 << 20,
      .help = "Bytes of a request at most" },
    { .name = "timeout", .type = IMGTK_OPT_UINT, .default_text = "60", .max = 86400,
      .help = "Seconds that a server may be silent while it owes an answer; 0: for ever" },
    { .name = "tls-certificates", .type = IMGTK_OPT_STRING,
      .help = "Folder with ca-cert.pem and the client's certificate" },
    { .name = "tls-psk-file", .type = IMGTK_OPT_STRING, .help = "File with pre-shared keys" },
    { .name = "tls-username", .type = IMGTK_OPT_STRING, .help = "Name to look up there" },
    { .name = "tls-verify-peer", .type = IMGTK_OPT_BOOL, .default_text = "on",
      .help = "Check the server's certificate" },
    { .name = NULL },
};

/* ---- Opening ------------------------------------------------------------------ */

static void read_settings(const struct imgtk_opts *opts, struct nbd_settings *out)
{
    *out = (struct nbd_settings){
        .requests = (unsigned)imgtk_opts_number(opts, "requests"),
        .timeout = (unsigned)imgtk_opts_number(opts, "timeout"),
        .tls_certificates = imgtk_opts_text(opts, "tls-certificates"),
        .tls_username = imgtk_opts_text(opts, "tls-username"),
        .tls_psk_file = imgtk_opts_text(opts, "tls-psk-file"),
        .tls_verify_peer = imgtk_opts_bool(opts, "tls-verify-peer"),
    };
}

static int ask_export(struct nbd *nbd, uint32_t flags, uint32_t request_size, struct imgtk_error *err)
{
    struct nbd_handle *handle = nbd->connections[0].handle;
    int64_t size = nbd_get_size(handle);
    int64_t block = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
    int64_t largest = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
    if (size < 0)
        return imgtk_fail(err, IMGTK_EIO, "the server does not tell the size of the export");
    nbd->size = (uint64_t)size;
    nbd->block = block > 1 ? (uint32_t)block : 1;
    if (block > NBD_MAX_BLOCK || !imgtk_is_power_of_two(nbd->block))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED,
                          "the server takes blocks of at least %" PRId64 " bytes, the limit is %d", block,
                          NBD_MAX_BLOCK);
    nbd->request_size = request_size;
    if (largest > 0 && largest < (int64_t)request_size)
        nbd->request_size = (uint32_t)largest;
    nbd->request_size = (uint32_t)imgtk_round_down(nbd->request_size, nbd->block);
    if (nbd->request_size == 0)
        nbd->request_size = nbd->block;
    nbd->writable = flags & IMGTK_STORAGE_WRITABLE;
    if (nbd->writable && nbd_is_read_only(handle) > 0)
        return imgtk_fail(err, IMGTK_EREFUSED, "the export is read-only");
    nbd->has_extents = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    nbd->can_zero = nbd_can_zero(handle) > 0;
    nbd->can_flush = nbd_can_flush(handle) > 0;
    return 0;
}

/* The further connections; a server that was started listens on a socket whose address libnbd knows. */
static int connect_more(struct nbd *nbd, const struct nbd_settings *settings, const char *name, unsigned wanted,
                        struct imgtk_error *err)
{
    struct nbd_handle *first = nbd->connections[0].handle;
    if (wanted < 2 || nbd_can_multi_conn(first) <= 0)
        return 0;
    char *uri = name[0] == '[' ? nbd_get_uri(first) : strdup(name);
    int status = uri ? 0 : imgtk_fail(err, IMGTK_EIO, "the address of the server is not known");
    while (!status && nbd->count < wanted) {
        status = nbd_connection_open(&nbd->connections[nbd->count], settings, uri, NULL, err);
        nbd->count++; /* to be closed, however far it came */
    }
    free(uri);
    return status;
}

static int connect_first(struct nbd *nbd, const struct nbd_settings *settings, const char *name,
                         struct imgtk_error *err)
{
    char **words = NULL;
    int status = name[0] == '[' ? nbd_command_split(name, &words, err) : 0;
    if (status)
        return status;
    nbd->count = 1;
    status = nbd_connection_open(&nbd->connections[0], settings, name, words, err);
    free(words);
    return status;
}

static void nbd_ops_close(void *handle)
{
    struct nbd *nbd = handle;
    while (nbd->count > 0)
        nbd_connection_close(&nbd->connections[--nbd->count]); /* the first one, which may end its server, last */
    pthread_mutex_destroy(&nbd->partial);
    pthread_mutex_destroy(&nbd->lock);
    free(nbd->connections);
    free(nbd);
}

static int open_all(struct nbd *nbd, const char *name, uint32_t flags, const struct imgtk_opts *opts,
                    struct imgtk_error *err)
{
    struct nbd_settings settings;
    read_settings(opts, &settings);
    int status = connect_first(nbd, &settings, name, err);
    if (!status)
        status = ask_export(nbd, flags, (uint32_t)imgtk_opts_number(opts, "request-size"), err);
    if (!status)
        status = connect_more(nbd, &settings, name, (unsigned)imgtk_opts_number(opts, "connections"), err);
    for (unsigned i = 0; !status && i < nbd->count; i++)
        status = nbd_connection_start(&nbd->connections[i], err);
    return status;
}

static int nbd_ops_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                        struct imgtk_error *err)
{
    struct nbd *nbd = calloc(1, sizeof(*nbd));
    if (!nbd)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    pthread_mutex_init(&nbd->partial, NULL);
    pthread_mutex_init(&nbd->lock, NULL);
    nbd->connections = calloc(NBD_MAX_CONNECTIONS, sizeof(*nbd->connections));
    int status = nbd->connections ? open_all(nbd, name, flags, opts, err)
                                  : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (status) {
        nbd_ops_close(nbd);
        return status;
    }
    *handle = nbd;
    return 0;
}

/* ---- Moving whole blocks --------------------------------------------------------- */

static struct nbd_connection *choose(struct nbd *nbd)
{
    return &nbd->connections[atomic_fetch_add_explicit(&nbd->next, 1, memory_order_relaxed) % nbd->count];
}

static int fail_request(const struct nbd_request *request, struct imgtk_error *err)
{
    static const char *const what[] = { "read", "write", "zero", "flush", "ask about" };
    if (request->error == ENOTCONN)
        return imgtk_fail(err, IMGTK_EIO, "the connection was lost at offset %" PRIu64, request->offset);
    if (request->error == ETIMEDOUT)
        return imgtk_fail(err, IMGTK_EIO, "the server does not answer any more, at offset %" PRIu64 " (see --timeout)",
                          request->offset);
    return imgtk_fail_errno(err, request->error, "the server could not %s %" PRIu64 " bytes at offset %" PRIu64,
                            what[request->command], request->length, request->offset);
}

/* Cuts the range into requests, which are on their way together, and waits for all. */
static int move(struct nbd *nbd, enum nbd_command command, void *buf, uint64_t length, uint64_t offset, uint32_t flags,
                uint64_t piece, struct imgtk_error *err)
{
    int status = 0;
    while (length > 0 && !status) {
        struct nbd_request requests[FLIGHT];
        size_t count = 0;
        for (; count < FLIGHT && length > 0; count++) {
            uint64_t now = imgtk_min_u64(length, piece);
            requests[count] = (struct nbd_request){ .command = command, .buf = buf, .length = now, .offset = offset,
                                                    .flags = flags };
            nbd_connection_send(choose(nbd), &requests[count]);
            buf = buf ? (char *)buf + now : NULL;
            offset += now;
            length -= now;
        }
        for (size_t i = 0; i < count; i++) {
            nbd_connection_wait(&requests[i]);
            if (requests[i].error && !status)
                status = fail_request(&requests[i], err);
        }
    }
    return status;
}

static bool is_aligned(const struct nbd *nbd, uint64_t offset, uint64_t length)
{
    return (offset | length) % nbd->block == 0;
}

/* The blocks around the range, read into memory of their own. */
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
    int status = move(nbd, NBD_READ, out->bytes, out->length, out->start, 0, nbd->request_size, err);
    if (status)
        free(out->bytes);
    return status;
}

/* ---- Ops ------------------------------------------------------------------------- */

static int nbd_ops_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    (void)err;
    *out = ((const struct nbd *)handle)->size;
    return 0;
}

static uint32_t nbd_ops_flags(void *handle)
{
    const struct nbd *nbd = handle;
    return IMGTK_STORAGE_FIXED_SIZE | IMGTK_STORAGE_REMOTE | (nbd->writable ? IMGTK_STORAGE_WRITABLE : 0) |
           (nbd->has_extents ? IMGTK_STORAGE_HAS_EXTENTS : 0);
}

static int nbd_ops_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    *done = 0;
    if (offset >= nbd->size)
        return 0;
    length = (size_t)imgtk_min_u64(length, nbd->size - offset);
    int status;
    if (is_aligned(nbd, offset, length)) {
        status = move(nbd, NBD_READ, buf, length, offset, 0, nbd->request_size, err);
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

static int write_part(struct nbd *nbd, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct around around;
    pthread_mutex_lock(&nbd->partial);
    int status = read_around(nbd, offset, length, &around, err);
    if (!status) {
        memcpy(around.bytes + (offset - around.start), buf, length);
        status = move(nbd, NBD_WRITE, around.bytes, around.length, around.start, 0, nbd->request_size, err);
        free(around.bytes);
    }
    pthread_mutex_unlock(&nbd->partial);
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

static int nbd_ops_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    int status = check_room(nbd, offset, length, err);
    if (status)
        return status;
    if (!is_aligned(nbd, offset, length))
        return write_part(nbd, buf, length, offset, err);
    return move(nbd, NBD_WRITE, (void *)(uintptr_t)buf, length, offset, 0, nbd->request_size, err);
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
static int nbd_ops_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    uint32_t no_hole = flags & IMGTK_ZERO_ALLOCATE ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    int status = check_room(nbd, offset, length, err);
    if (status || !nbd->can_zero || !is_aligned(nbd, offset, length))
        return status ? status : write_zeroes(nbd, offset, length, err);
    return move(nbd, NBD_ZERO, NULL, length, offset, no_hole, imgtk_round_down(ZERO_LENGTH, nbd->block), err);
}

/* The part of the last answer that covers the offset. */
static bool recall(struct nbd *nbd, uint64_t offset, struct imgtk_range *out)
{
    bool found = false;
    pthread_mutex_lock(&nbd->lock);
    uint64_t start = nbd->status.start;
    for (size_t i = 0; !found && i < nbd->status.count && start <= offset; i++) {
        uint64_t length = nbd->status.extents[i].length;
        found = offset - start < length;
        if (found)
            *out = (struct imgtk_range){ .length = start + length - offset,
                                         .kind = nbd->status.extents[i].zero ? IMGTK_RANGE_ZERO : IMGTK_RANGE_DATA };
        start += length;
    }
    pthread_mutex_unlock(&nbd->lock);
    return found;
}

static int ask_status(struct nbd *nbd, uint64_t offset, struct imgtk_error *err)
{
    struct nbd_status *answer = malloc(sizeof(*answer));
    if (!answer)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    answer->count = 0;
    struct nbd_request request = { .command = NBD_STATUS, .offset = imgtk_round_down(offset, nbd->block),
                                   .status_out = answer };
    request.length = imgtk_min_u64(nbd->size - request.offset, imgtk_round_down(STATUS_LENGTH, nbd->block));
    nbd_connection_send(choose(nbd), &request);
    nbd_connection_wait(&request);
    int status = 0;
    if (request.error == ENOTCONN || request.error == ETIMEDOUT)
        status = fail_request(&request, err);
    else if (request.error || answer->count == 0) /* a server need not know: then all is data */
        atomic_store(&nbd->no_status, true);
    if (!status && answer->count > 0) {
        pthread_mutex_lock(&nbd->lock);
        nbd->status = *answer;
        pthread_mutex_unlock(&nbd->lock);
    }
    free(answer);
    return status;
}

static int nbd_ops_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out,
                          struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    *out = (struct imgtk_range){ .length = length, .kind = IMGTK_RANGE_DATA };
    if (!nbd->has_extents || offset >= nbd->size || atomic_load(&nbd->no_status))
        return 0;
    /* What was written since the answer would be forgotten. */
    if (!nbd->writable && recall(nbd, offset, out))
        return 0;
    int status = ask_status(nbd, offset, err);
    if (!status)
        recall(nbd, offset, out);
    return status;
}

/* What one connection flushes covers all where the server allows several, which it says together. */
static int nbd_ops_flush(void *handle, struct imgtk_error *err)
{
    struct nbd *nbd = handle;
    if (!nbd->can_flush)
        return 0;
    struct nbd_request request = { .command = NBD_FLUSH };
    nbd_connection_send(&nbd->connections[0], &request);
    nbd_connection_wait(&request);
    return request.error ? fail_request(&request, err) : 0;
}

static int nbd_ops_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    const struct nbd *nbd = handle;
    if (size > nbd->size)
        return imgtk_fail(err, IMGTK_ENOSPACE, "%" PRIu64 " bytes are needed, and the export has %" PRIu64, size,
                          nbd->size);
    return size == nbd->size ? 0 : imgtk_fail(err, IMGTK_EUNSUPPORTED, "an export cannot be resized");
}

static const char *const schemes[] = { "nbd:",       "nbds:",       "nbd+unix:", "nbds+unix:",
                                       "nbd+vsock:", "nbds+vsock:", "[ ",        NULL };

static const struct imgtk_storage_ops ops = {
    .struct_size = sizeof(ops),
    .name = "nbd",
    .description = "exports of NBD servers; [ COMMAND ] starts one",
    .version = IMGTK_VERSION,
    .schemes = schemes,
    .opts = options,
    .open = nbd_ops_open,
    .close = nbd_ops_close,
    .size = nbd_ops_size,
    .pread = nbd_ops_pread,
    .flags = nbd_ops_flags,
    .pwrite = nbd_ops_pwrite,
    .zero = nbd_ops_zero,
    .extent = nbd_ops_extent,
    .truncate = nbd_ops_truncate,
    .flush = nbd_ops_flush,
};

const struct imgtk_storage_ops *imgtk_storage_v1(void)
{
    return &ops;
}
