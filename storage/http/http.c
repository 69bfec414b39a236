/* Files of HTTP servers as storage, for reading. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "imgtk/bytes.h"
#include "imgtk/driver.h"

/* ---- Opening ------------------------------------------------------------------- */

static int load_block(void *context, uint64_t block, void *table, struct imgtk_error *err)
{
    struct http *http = context;
    uint64_t offset = block * HTTP_BLOCK;
    return http_get(http, table, (size_t)imgtk_min_u64(HTTP_BLOCK, http->size - offset), offset, err);
}

static int add_condition(struct http *http, const char *name, const char *value, struct imgtk_error *err)
{
    char line[HTTP_MAX_TAG + 32];
    snprintf(line, sizeof(line), "%s: %s", name, value);
    struct curl_slist *list = curl_slist_append(http->conditions, line);
    if (!list)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    http->conditions = list;
    return 0;
}

/* A weak ETag ("W/...") never matches in a condition. What the replies say is compared in any case. */
static int set_conditions(struct http *http, struct imgtk_error *err)
{
    const struct http_reply *known = &http->known;
    if (known->etag[0] == '"')
        return add_condition(http, "If-Match", known->etag, err);
    return known->modified[0] ? add_condition(http, "If-Unmodified-Since", known->modified, err) : 0;
}

/* Where redirects led; the handle that was there is the first one. */
static int settle(struct http *http, struct imgtk_error *err)
{
    char *place = NULL;
    if (curl_easy_getinfo(http->handles.list[0].curl, CURLINFO_EFFECTIVE_URL, &place) != CURLE_OK)
        return 0;
    return http_address_settle(&http->address, place, err);
}

static int begin_ranges(struct http *http, struct imgtk_error *err)
{
    int status = settle(http, err);
    if (!status)
        status = set_conditions(http, err);
    if (!status)
        status = imgtk_cache_new(HTTP_BLOCK, HTTP_CACHE, load_block, http, &http->cache, err);
    return status ? status : http_ahead_new(http, &http->ahead, err);
}

static int begin_stream(struct http *http, struct imgtk_error *err)
{
    int status = http_stream_open(http, &http->stream, err);
    if (status)
        return status;
    http->known = *http_stream_reply(http->stream);
    http->size = http->known.length;
    http->start_length = 0;
    return 0;
}

/* libcurl calls it about once a second, also when nothing comes. */
static int on_progress(void *context, curl_off_t total, curl_off_t now, curl_off_t to_send, curl_off_t sent)
{
    (void)total, (void)now, (void)to_send, (void)sent;
    return http_is_over(context);
}

static bool make_cancellable(CURL *curl, struct http *http)
{
    return curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_XFERINFODATA, http) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK;
}

static int set_up(struct http *http, const char *name, const struct imgtk_opts *opts, struct imgtk_error *err)
{
    CURL *pattern = curl_easy_init();
    http_handles_init(&http->handles, pattern, (unsigned)imgtk_opts_number(opts, "connections"));
    http->retries = (unsigned)imgtk_opts_number(opts, "retries");
    http->timeout = (unsigned)imgtk_opts_number(opts, "timeout");
    http->spool_limit = imgtk_opts_number(opts, "spool-limit");
    http->start = malloc(HTTP_BLOCK);
    if (!pattern || !http->start || !make_cancellable(pattern, http))
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = http_address_parse(&http->address, name, err);
    return status ? status : http_options_apply(opts, pattern, &http->address, err);
}

static int begin(struct http *http, const char *name, const struct imgtk_opts *opts, struct imgtk_error *err)
{
    bool ranges = false;
    int status = set_up(http, name, opts, err);
    if (!status)
        status = http_get_start(http, &ranges, err);
    if (status)
        return status;
    return ranges ? begin_ranges(http, err) : begin_stream(http, err);
}

static void http_ops_close(void *handle)
{
    struct http *http = handle;
    atomic_store(&http->closing, true);
    http_ahead_free(http->ahead);
    imgtk_cache_free(http->cache);
    http_stream_close(http->stream);
    http_handles_destroy(&http->handles);
    curl_slist_free_all(http->conditions);
    http_address_free(&http->address);
    free(http->start);
    free(http);
    curl_global_cleanup();
}

static int http_ops_open(const char *name, uint32_t flags, const struct imgtk_opts *opts,
                         const struct imgtk_cancel *cancel, void **handle, struct imgtk_error *err)
{
    if (flags & IMGTK_STORAGE_WRITABLE)
        return imgtk_fail(err, IMGTK_EREFUSED, "a file of an HTTP server is read, never written");
    /* libcurl counts these itself; since 7.84 from several threads too. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return imgtk_fail(err, IMGTK_ENOMEM, "libcurl cannot be initialised");
    struct http *http = calloc(1, sizeof(*http));
    if (!http) {
        curl_global_cleanup();
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    http->cancel = cancel;
    int status = begin(http, name, opts, err);
    if (status) {
        http_ops_close(http);
        return status;
    }
    *handle = http;
    return 0;
}

/* ---- Reading -------------------------------------------------------------------------- */

static int read_cached(struct http *http, uint8_t *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    while (length > 0) {
        const void *block;
        size_t within = (size_t)(offset % HTTP_BLOCK);
        size_t piece = (size_t)imgtk_min_u64(length, HTTP_BLOCK - within);
        int status = imgtk_cache_get(http->cache, offset / HTTP_BLOCK, &block, err);
        if (status)
            return status;
        memcpy(buf, (const uint8_t *)block + within, piece);
        imgtk_cache_put(http->cache, block);
        buf += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}

static int read_ranges(struct http *http, uint8_t *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    int status = 0;
    http_ahead_note(http->ahead, length, offset);
    while (!status && length > 0) {
        size_t gap, piece = http_ahead_take(http->ahead, buf, length, offset, &gap);
        if (piece == 0) {
            piece = gap;
            status = piece <= HTTP_BLOCK ? read_cached(http, buf, piece, offset, err)
                                         : http_get(http, buf, piece, offset, err);
        }
        buf += piece;
        offset += piece;
        length -= piece;
    }
    return status;
}

static int http_ops_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done,
                          struct imgtk_error *err)
{
    struct http *http = handle;
    *done = 0;
    if (http->stream)
        return http_stream_read(http->stream, buf, length, done, err);
    if (offset >= http->size)
        return 0;
    length = (size_t)imgtk_min_u64(length, http->size - offset);
    int status = read_ranges(http, buf, length, offset, err);
    *done = status ? 0 : length;
    return status;
}

static int http_ops_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    const struct http *http = handle;
    *out = http->size;
    if (http->stream && !http->known.has_length)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the server does not tell how long the file is");
    return 0;
}

static uint32_t http_ops_flags(void *handle)
{
    const struct http *http = handle;
    return IMGTK_STORAGE_FIXED_SIZE | IMGTK_STORAGE_REMOTE | (http->stream ? IMGTK_STORAGE_SEQUENTIAL : 0);
}

static const char *http_ops_version_of(void *handle)
{
    const struct http_reply *known = &((const struct http *)handle)->known;
    return known->etag[0] ? known->etag : known->modified[0] ? known->modified : NULL;
}

static uint64_t http_ops_spool_limit(void *handle)
{
    return ((const struct http *)handle)->spool_limit;
}

static const char *const schemes[] = { "http:", "https:", NULL };

static const struct imgtk_storage_ops ops = {
    .struct_size = sizeof(ops),
    .name = "http",
    .description = "files of HTTP and HTTPS servers, for reading",
    .version = IMGTK_VERSION,
    .schemes = schemes,
    .opts = http_options,
    .open_cancellable = http_ops_open,
    .close = http_ops_close,
    .size = http_ops_size,
    .pread = http_ops_pread,
    .flags = http_ops_flags,
    .version_of = http_ops_version_of,
    .spool_limit = http_ops_spool_limit,
};

const struct imgtk_storage_ops *imgtk_storage_v1(void)
{
    return &ops;
}
