/* The reply of a server that knows no ranges: one request, read as it comes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "imgtk/bytes.h"

struct http_stream {
    struct http *http;
    struct http_handle handle;
    CURLM *multi;
    struct http_reply reply;
    uint8_t *buf;                        /* of the read at hand, NULL between reads */
    size_t length, done;
    uint8_t spare[CURL_MAX_WRITE_SIZE];  /* what came with the last bytes of a read and was too much for it */
    size_t spare_at, spare_length;
    uint64_t position;                   /* of the next byte that libcurl gives */
    bool paused, ended;
    CURLcode code;                       /* with which it ended */
};

static void take_bytes(struct http_stream *stream, const uint8_t *bytes, size_t length)
{
    size_t now = (size_t)imgtk_min_u64(length, stream->length - stream->done);
    memcpy(stream->buf + stream->done, bytes, now);
    stream->done += now;
    stream->spare_at = 0;
    stream->spare_length = length - now;
    memcpy(stream->spare, bytes + now, stream->spare_length);
}

static size_t on_body(char *bytes, size_t unit, size_t count, void *context)
{
    struct http_stream *stream = context;
    size_t length = unit * count;
    if (stream->reply.code != 200 || length > sizeof(stream->spare))
        return 0;
    if (stream->done == stream->length) {
        stream->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    take_bytes(stream, (const uint8_t *)bytes, length);
    stream->position += length;
    return length;
}

/* ---- Moving on -------------------------------------------------------------------- */

static void look_for_the_end(struct http_stream *stream)
{
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(stream->multi, &left)) != NULL;) {
        if (message->msg != CURLMSG_DONE)
            continue;
        stream->ended = true;
        stream->code = message->data.result;
    }
}

/* Waits up to a second and takes what has come. */
static void move(struct http_stream *stream)
{
    int running = 0;
    if (stream->paused) {
        stream->paused = false;
        curl_easy_pause(stream->handle.curl, CURLPAUSE_CONT); /* may call on_body() */
    }
    if (curl_multi_perform(stream->multi, &running) != CURLM_OK) {
        stream->ended = true;
        stream->code = CURLE_RECV_ERROR;
        return;
    }
    look_for_the_end(stream);
    if (!stream->ended && !stream->paused && stream->done < stream->length)
        curl_multi_poll(stream->multi, NULL, 0, 1000, NULL);
}

static int conclude(const struct http_stream *stream, struct imgtk_error *err)
{
    const struct http_reply *reply = &stream->reply;
    if (reply->code && reply->code != 200 && reply->code < 300)
        return imgtk_fail(err, IMGTK_EIO, "the server answers with status %u", reply->code);
    if (stream->code != CURLE_OK)
        return http_explain(stream->http, &stream->handle, stream->code, stream->position, err);
    return 0;
}

int http_stream_read(struct http_stream *stream, void *buf, size_t length, size_t *done, struct imgtk_error *err)
{
    size_t kept = (size_t)imgtk_min_u64(stream->spare_length, length);
    memcpy(buf, stream->spare + stream->spare_at, kept);
    stream->spare_at += kept;
    stream->spare_length -= kept;
    stream->buf = buf;
    stream->done = kept;
    stream->length = length;
    while (stream->done < length && !stream->ended)
        move(stream);
    *done = stream->done;
    stream->length = stream->done = 0;
    return *done < length ? conclude(stream, err) : 0;
}

/* ---- Opening and closing -------------------------------------------------------------- */

void http_stream_close(struct http_stream *stream)
{
    if (!stream)
        return;
    if (stream->multi && stream->handle.curl)
        curl_multi_remove_handle(stream->multi, stream->handle.curl);
    curl_easy_cleanup(stream->handle.curl);
    curl_multi_cleanup(stream->multi);
    free(stream);
}

static int prepare(struct http_stream *stream, struct imgtk_error *err)
{
    CURL *curl = stream->handle.curl = curl_easy_duphandle(stream->http->handles.pattern);
    stream->multi = curl_multi_init();
    if (!curl || !stream->multi)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, stream->handle.reason);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, http_on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &stream->reply);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, stream);
    if (curl_multi_add_handle(stream->multi, curl) != CURLM_OK)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    return http_set_address(stream->http, &stream->handle, stream->http->address.url, err);
}

/* Until the body begins, which nobody reads yet: then its headers are known. */
static int wait_for_headers(struct http_stream *stream, struct imgtk_error *err)
{
    int running = 1;
    while (!stream->paused && !stream->ended) {
        if (curl_multi_perform(stream->multi, &running) != CURLM_OK)
            return imgtk_fail(err, IMGTK_EIO, "the request failed");
        look_for_the_end(stream);
        if (!stream->paused && !stream->ended)
            curl_multi_poll(stream->multi, NULL, 0, 1000, NULL);
    }
    return stream->ended ? conclude(stream, err) : 0;
}

int http_stream_open(struct http *http, struct http_stream **out, struct imgtk_error *err)
{
    struct http_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    stream->http = http;
    int status = prepare(stream, err);
    if (!status)
        status = wait_for_headers(stream, err);
    if (!status && stream->reply.is_encoded)
        status = imgtk_fail(err, IMGTK_EUNSUPPORTED, "the server sends the file in an encoding (Content-Encoding)");
    if (status) {
        http_stream_close(stream);
        return status;
    }
    *out = stream;
    return 0;
}

const struct http_reply *http_stream_reply(const struct http_stream *stream)
{
    return &stream->reply;
}
