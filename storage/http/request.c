/* Requests for a range: sending, judging the reply before its first byte is taken, and sending again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http.h"
#include "imgtk/bytes.h"

#define FIRST_PAUSE_MS 500u
#define LONGEST_PAUSE_MS 8000u
#define PAUSE_STEP_MS 100u
#define RETRIES_AHEAD 2u /* then who needs the bytes asks for them, with all the patience that was wished for */
#define LONGEST_WISH_MS 60000u /* of a server that says when to come again */

/* A range on its way into memory, over as many requests as it takes. */
struct transfer {
    struct http *http;
    uint8_t *buf;
    uint64_t offset;         /* of buf */
    size_t length, done;
    bool is_first;           /* nothing is known of the file yet */
    bool is_ahead;           /* nobody may need it */

    /* Of the request at hand. */
    struct http_reply reply;
    bool judged, no_ranges;
    size_t promised;         /* `done` when the reply has been received */
    int status;              /* the reply cannot be used; `error` says why */
    struct imgtk_error error;
};

/* ---- What went wrong ---------------------------------------------------------- */

static int fail_changed(struct imgtk_error *err)
{
    return imgtk_fail(err, IMGTK_ECHANGED, "the file on the server is not the one that the job began with");
}

static int explain_code(long code, struct imgtk_error *err)
{
    switch (code) {
    case 401:
    case 407:
        return imgtk_fail(err, IMGTK_EREFUSED,
                          "the server asks for credentials (status %ld): see netrc-file and token-file", code);
    case 403:
        return imgtk_fail(err, IMGTK_EREFUSED, "the server refuses to give the file (status %ld)", code);
    case 404:
    case 410:
        return imgtk_fail(err, IMGTK_ENOTFOUND, "the server has no such file (status %ld)", code);
    case 412:
    case 416:
        return fail_changed(err);
    default:
        return imgtk_fail(err, IMGTK_EIO, "the server answers with status %ld", code);
    }
}

static int explain_failure(const struct http_handle *handle, CURLcode code, const char *what, struct imgtk_error *err)
{
    const char *reason = handle->reason[0] ? handle->reason : curl_easy_strerror(code);
    int status = code == CURLE_OUT_OF_MEMORY ? IMGTK_ENOMEM : IMGTK_EIO;
    return imgtk_fail(err, status, "%s: %.*s", what, (int)strcspn(reason, "\r\n"), reason);
}

static int explain_redirect(const struct http_handle *handle, struct imgtk_error *err)
{
    if (strncmp(handle->url, "https:", 6) == 0)
        return imgtk_fail(err, IMGTK_EREFUSED, "the server redirects from https to another protocol");
    return imgtk_fail(err, IMGTK_EREFUSED, "the server redirects to a protocol that is neither http nor https");
}

int http_explain(const struct http *http, const struct http_handle *handle, CURLcode code, uint64_t offset,
                 struct imgtk_error *err)
{
    long answer = 0;
    curl_easy_getinfo(handle->curl, CURLINFO_RESPONSE_CODE, &answer);
    switch (code) {
    case CURLE_HTTP_RETURNED_ERROR:
        return explain_code(answer, err);
    case CURLE_ABORTED_BY_CALLBACK:
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    case CURLE_OPERATION_TIMEDOUT:
        return imgtk_fail(err, IMGTK_EIO, "the server does not answer, at offset %" PRIu64
                          " (waited %u seconds, see --timeout)", offset, http->timeout);
    case CURLE_TOO_MANY_REDIRECTS:
        return imgtk_fail(err, IMGTK_EREFUSED, "the server redirects more often than the option redirects allows");
    case CURLE_UNSUPPORTED_PROTOCOL: /* also what is no reply at all */
        return answer >= 300 ? explain_redirect(handle, err)
                             : explain_failure(handle, code, "the request failed", err);
    case CURLE_WRITE_ERROR: /* a reply that cannot be used has its own message: here it is on_header() that ended it */
        return imgtk_fail(err, IMGTK_ELIMIT, "the server sends more than %d bytes of headers", HTTP_MAX_HEADERS);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
        return explain_failure(handle, code, "cannot connect", err);
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        return imgtk_fail(err, IMGTK_EIO, "the connection was lost at offset %" PRIu64, offset);
    default:
        return explain_failure(handle, code, "the request failed", err);
    }
}

/* ---- Judging a reply ------------------------------------------------------------- */

/* The bytes asked for and no others. */
static int judge_part(struct transfer *transfer, struct imgtk_error *err)
{
    const struct http_reply *reply = &transfer->reply;
    uint64_t first = transfer->offset + transfer->done, end = transfer->offset + transfer->length;
    if (transfer->is_first && !(reply->has_range && reply->has_total))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the server does not tell how long the file is");
    if (transfer->is_first)
        end = imgtk_min_u64(end, reply->total);
    if (!reply->has_range || reply->first != first || reply->last + 1 != end)
        return imgtk_fail(err, IMGTK_EIO, "the server was asked for bytes %" PRIu64 " to %" PRIu64
                          " and sends others", first, end - 1);
    transfer->promised = (size_t)(end - transfer->offset);
    return 0;
}

/* The whole file, where a part was asked for: if it is small, that is as good. */
static int judge_whole(struct transfer *transfer, struct imgtk_error *err)
{
    const struct http_reply *reply = &transfer->reply;
    if (!transfer->is_first)
        return imgtk_fail(err, IMGTK_EIO, "the server sends the whole file, and was asked for a part");
    transfer->no_ranges = !reply->has_length || reply->length > transfer->length;
    transfer->promised = (size_t)reply->length;
    transfer->done = 0; /* what came before the line was lost comes again */
    return 0;
}

static int judge(struct transfer *transfer, struct imgtk_error *err)
{
    const struct http_reply *reply = &transfer->reply, *known = &transfer->http->known;
    transfer->judged = true;
    if (reply->is_encoded)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the server sends the file in an encoding (Content-Encoding)");
    if (!http_reply_same_content(reply, known))
        return fail_changed(err);
    if (reply->code == 206)
        return judge_part(transfer, err);
    return reply->code == 200 ? judge_whole(transfer, err) : explain_code((long)reply->code, err);
}

size_t http_on_header(char *line, size_t unit, size_t count, void *context)
{
    struct http_reply *reply = context;
    http_reply_add(reply, line, unit * count);
    return reply->received > HTTP_MAX_HEADERS ? 0 : unit * count;
}

/* Another count than the bytes given ends the request. */
static size_t on_body(char *bytes, size_t unit, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t length = unit * count;
    if (!transfer->judged)
        transfer->status = judge(transfer, &transfer->error);
    if (!transfer->status && !transfer->no_ranges && length > transfer->promised - transfer->done)
        transfer->status = imgtk_fail(&transfer->error, IMGTK_EIO, "the server sends more bytes than it was asked for");
    if (transfer->status || transfer->no_ranges)
        return 0;
    memcpy(transfer->buf + transfer->done, bytes, length);
    transfer->done += length;
    return length;
}

/* ---- One request ---------------------------------------------------------------------- */

int http_set_address(const struct http *http, struct http_handle *handle, const char *url, struct imgtk_error *err)
{
    const struct http_address *address = &http->address;
    bool foreign = url == address->place && address->place_is_foreign;
    if (handle->url == url)
        return 0;
    if (curl_easy_setopt(handle->curl, CURLOPT_URL, url) != CURLE_OK ||
        curl_easy_setopt(handle->curl, CURLOPT_USERNAME, foreign ? NULL : address->user) != CURLE_OK ||
        curl_easy_setopt(handle->curl, CURLOPT_PASSWORD, foreign ? NULL : address->password) != CURLE_OK ||
        curl_easy_setopt(handle->curl, CURLOPT_XOAUTH2_BEARER, foreign ? NULL : address->token) != CURLE_OK ||
        curl_easy_setopt(handle->curl, CURLOPT_HTTPAUTH, address->token ? CURLAUTH_BEARER : CURLAUTH_BASIC) != CURLE_OK)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    handle->url = url;
    return 0;
}

static int prepare(struct transfer *transfer, struct http_handle *handle, struct imgtk_error *err)
{
    struct http *http = transfer->http;
    const struct http_address *address = &http->address;
    bool at_place = address->place && !atomic_load(&http->place_is_gone);
    char range[64];
    snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, transfer->offset + transfer->done,
             transfer->offset + transfer->length - 1);
    memset(&transfer->reply, 0, sizeof(transfer->reply));
    transfer->judged = false;
    transfer->promised = transfer->done;
    handle->reason[0] = '\0';
    if (curl_easy_setopt(handle->curl, CURLOPT_RANGE, range) != CURLE_OK)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    curl_easy_setopt(handle->curl, CURLOPT_HTTPHEADER, http->conditions);
    curl_easy_setopt(handle->curl, CURLOPT_ERRORBUFFER, handle->reason);
    curl_easy_setopt(handle->curl, CURLOPT_HEADERFUNCTION, http_on_header);
    curl_easy_setopt(handle->curl, CURLOPT_HEADERDATA, &transfer->reply);
    curl_easy_setopt(handle->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(handle->curl, CURLOPT_WRITEDATA, transfer);
    return http_set_address(http, handle, at_place ? address->place : address->url, err);
}

/* What has come of a request that libcurl calls good. */
static int conclude(struct transfer *transfer, struct imgtk_error *err)
{
    int status = transfer->judged ? 0 : judge(transfer, err); /* there was no body */
    if (!status && !transfer->no_ranges && transfer->done < transfer->promised)
        status = imgtk_fail(err, IMGTK_EIO, "the server sends fewer bytes than it says, at offset %" PRIu64,
                            transfer->offset + transfer->done);
    return status;
}

/* An empty file has no range that could be given. */
static bool is_empty_file(const struct transfer *transfer)
{
    const struct http_reply *reply = &transfer->reply;
    return transfer->is_first && reply->code == 416 && reply->has_total && reply->total == 0;
}

static int send_once(struct transfer *transfer, struct http_handle *handle, CURLcode *code, struct imgtk_error *err)
{
    *code = CURLE_OK;
    int status = prepare(transfer, handle, err);
    if (status)
        return status;
    *code = curl_easy_perform(handle->curl);
    if (transfer->status) {
        if (err)
            *err = transfer->error;
        return transfer->status;
    }
    if (*code == CURLE_OK)
        return conclude(transfer, err);
    if (transfer->no_ranges || is_empty_file(transfer))
        return 0;
    return http_explain(transfer->http, handle, *code, transfer->offset + transfer->done, err);
}

/* ---- Again ---------------------------------------------------------------------------- */

/* An address that a redirect gave may have been good for a while only. */
static bool leave_place(struct http *http, const struct http_handle *handle, CURLcode code, unsigned answer)
{
    bool gone = code == CURLE_HTTP_RETURNED_ERROR && handle->url && handle->url == http->address.place &&
                (answer == 401 || answer == 403 || answer == 404 || answer == 410);
    if (gone)
        atomic_store(&http->place_is_gone, true);
    return gone;
}

static bool may_pass(const struct transfer *transfer, CURLcode code)
{
    unsigned answer = transfer->reply.code;
    switch (code) {
    case CURLE_HTTP_RETURNED_ERROR:
        return answer == 408 || answer == 429 || answer == 500 || (answer >= 502 && answer <= 504);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
        return !transfer->is_first; /* whoever mistyped a name does not want to wait */
    case CURLE_OPERATION_TIMEDOUT:
        return !transfer->is_first && !transfer->is_ahead;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        return true;
    default:
        return false;
    }
}

static void pause_before(unsigned tries, const struct http_handle *handle, const struct http *http)
{
    curl_off_t wish = 0;
    uint64_t milliseconds = tries < 5 ? FIRST_PAUSE_MS << (tries - 1) : LONGEST_PAUSE_MS;
    curl_easy_getinfo(handle->curl, CURLINFO_RETRY_AFTER, &wish);
    if (wish > 0)
        milliseconds = imgtk_min_u64((uint64_t)wish, LONGEST_WISH_MS / 1000) * 1000;
    for (uint64_t slept = 0; slept < milliseconds && !http_is_over(http); slept += PAUSE_STEP_MS)
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_STEP_MS * 1000000L }, NULL);
}

static int run(struct transfer *transfer, struct imgtk_error *err)
{
    struct http *http = transfer->http;
    struct http_handle *handle = http_handles_take(&http->handles);
    if (!handle)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    unsigned retries = transfer->is_ahead && http->retries > RETRIES_AHEAD ? RETRIES_AHEAD : http->retries;
    int status;
    for (unsigned tries = 0;;) {
        CURLcode code;
        status = send_once(transfer, handle, &code, err);
        if (!status || transfer->status)
            break;
        if (leave_place(http, handle, code, transfer->reply.code))
            continue;
        if (!may_pass(transfer, code) || retries == 0)
            break;
        if (tries == retries) {
            imgtk_fail_prefix(err, "tried again %u times", tries);
            break;
        }
        pause_before(++tries, handle, http);
    }
    http_handles_put(&http->handles, handle);
    return status;
}

/* ---- What others ask for ------------------------------------------------------------------ */

int http_get(struct http *http, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    if (imgtk_range_fits(offset, length, http->start_length)) {
        memcpy(buf, http->start + offset, length);
        return 0;
    }
    struct transfer transfer = { .http = http, .buf = buf, .length = length, .offset = offset };
    return run(&transfer, err);
}

int http_get_ahead(struct http *http, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct transfer transfer = { .http = http, .buf = buf, .length = length, .offset = offset, .is_ahead = true };
    return run(&transfer, err);
}

int http_get_start(struct http *http, bool *ranges, struct imgtk_error *err)
{
    struct transfer transfer = { .http = http, .buf = http->start, .length = HTTP_BLOCK, .is_first = true };
    int status = run(&transfer, err);
    if (status)
        return status;
    *ranges = !transfer.no_ranges;
    http->known = transfer.reply;
    http->start_length = transfer.done;
    http->size = transfer.reply.has_total ? transfer.reply.total : transfer.done;
    return 0;
}
