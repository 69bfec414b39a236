/* NBD exports as storage. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/driver.h"
#include "nbd.h"

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

static void read_settings(const struct imgtk_opts *opts, uint32_t flags, const struct imgtk_cancel *cancel,
                          struct nbd_settings *out)
{
    *out = (struct nbd_settings){
        .cancel = cancel,
        .depth = flags & IMGTK_STORAGE_TELLS_DEPTH,
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
    nbd->can_zero = nbd_can_zero(handle) > 0;
    nbd->can_flush = nbd_can_flush(handle) > 0;
    nbd->can_fua = nbd_can_fua(handle) > 0;
    for (size_t i = 0; i < NBD_CONTEXTS; i++)
        nbd->tells[i] = nbd_can_meta_context(handle, nbd_context_names[i]) > 0;
    if ((flags & IMGTK_STORAGE_TELLS_DEPTH) && !nbd->tells[NBD_DEPTH])
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the server does not tell how deep ranges are allocated (qemu-nbd -A does)");
    return 0;
}

/* An export may be resized, or replaced, at any time. */
static int check_size(const struct nbd *nbd, const struct nbd_connection *connection, struct imgtk_error *err)
{
    int64_t size = nbd_get_size(connection->handle);
    if (size == (int64_t)nbd->size)
        return 0;
    return imgtk_fail(err, IMGTK_ECHANGED, "the export has %" PRIu64 " bytes on one connection and %" PRId64 " on another",
                      nbd->size, size);
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
        struct nbd_connection *connection = &nbd->connections[nbd->count++]; /* to be closed, however far it comes */
        status = nbd_connection_open(connection, settings, uri, NULL, err);
        if (!status)
            status = check_size(nbd, connection, err);
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
                    const struct imgtk_cancel *cancel, struct imgtk_error *err)
{
    struct nbd_settings settings;
    read_settings(opts, flags, cancel, &settings);
    int status = connect_first(nbd, &settings, name, err);
    if (!status)
        status = ask_export(nbd, flags, (uint32_t)imgtk_opts_number(opts, "request-size"), err);
    if (!status)
        status = connect_more(nbd, &settings, name, (unsigned)imgtk_opts_number(opts, "connections"), err);
    for (unsigned i = 0; !status && i < nbd->count; i++)
        status = nbd_connection_start(&nbd->connections[i], err);
    return status;
}

static int nbd_ops_open(const char *name, uint32_t flags, const struct imgtk_opts *opts,
                        const struct imgtk_cancel *cancel, void **handle, struct imgtk_error *err)
{
    struct nbd *nbd = calloc(1, sizeof(*nbd));
    if (!nbd)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    pthread_mutex_init(&nbd->partial, NULL);
    pthread_mutex_init(&nbd->lock, NULL);
    nbd->connections = calloc(NBD_MAX_CONNECTIONS, sizeof(*nbd->connections));
    int status = nbd->connections ? open_all(nbd, name, flags, opts, cancel, err)
                                  : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (status) {
        nbd_ops_close(nbd);
        return status;
    }
    *handle = nbd;
    return 0;
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
           (nbd->tells[NBD_ALLOCATION] ? IMGTK_STORAGE_HAS_EXTENTS : 0) |
           (nbd->tells[NBD_DEPTH] ? IMGTK_STORAGE_TELLS_DEPTH : 0);
}

static int nbd_ops_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    const struct nbd *nbd = handle;
    if (size > nbd->size)
        return imgtk_fail(err, IMGTK_ENOSPACE, "%" PRIu64 " bytes are needed, and the export has %" PRIu64, size,
                          nbd->size);
    return size == nbd->size ? 0 : imgtk_fail(err, IMGTK_EUNSUPPORTED, "an export cannot be resized");
}

static void nbd_ops_write_through(void *handle)
{
    ((struct nbd *)handle)->write_through = true;
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
    .close = nbd_ops_close,
    .size = nbd_ops_size,
    .pread = nbd_ops_pread,
    .flags = nbd_ops_flags,
    .pwrite = nbd_ops_pwrite,
    .zero = nbd_ops_zero,
    .extent = nbd_ops_extent,
    .truncate = nbd_ops_truncate,
    .flush = nbd_ops_flush,
    .depth = nbd_ops_depth,
    .write_through = nbd_ops_write_through,
    .open_cancellable = nbd_ops_open,
};

const struct imgtk_storage_ops *imgtk_storage_v1(void)
{
    return &ops;
}
