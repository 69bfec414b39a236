/* What the sources of the HTTP storage share. */
#ifndef IMGTK_HTTP_H
#define IMGTK_HTTP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>

#include "imgtk/cache.h"
#include "imgtk/storage.h"

enum {
    HTTP_BLOCK = 32 << 10,            /* reads of no more go through the cache, in whole blocks */
    HTTP_CACHE = 8 << 20,
    HTTP_MAX_CONNECTIONS = 64,
    HTTP_MAX_HEADERS = 256 << 10,     /* of one request, those of redirects included */
    HTTP_MAX_TAG = 256,               /* a longer ETag is passed over */
    HTTP_MAX_TOKEN = 64 << 10
};

/* ---- What a server says: reply.c ------------------------------------------- */

struct http_reply {
    unsigned code;                    /* 0: nothing yet */
    size_t received;                  /* bytes of headers, of all replies to one request */
    bool has_range, has_total, has_length, is_encoded;
    uint64_t first, last, total;      /* Content-Range: has_range for the first two, has_total for the third */
    uint64_t length;                  /* Content-Length */
    char etag[HTTP_MAX_TAG], modified[HTTP_MAX_TAG]; /* "": not told */
};

/* Takes one line of headers, without a NUL. A status line begins the reply anew. */
void http_reply_add(struct http_reply *reply, const char *line, size_t length);
/* Whether both speak of the same content, as far as both tell. */
bool http_reply_same_content(const struct http_reply *one, const struct http_reply *two);

/* ---- Where it is asked, and as whom: address.c ------------------------------ */

struct http_address {
    char *url;                        /* without credentials */
    char *user, *password, *token;    /* NULL: none */
    char *place;                      /* where the redirects of the first request led; NULL: nowhere else */
    bool place_is_foreign;            /* another server: it is not told the credentials */
};

int http_address_parse(struct http_address *address, const char *url, struct imgtk_error *err);
/* Remembers where the first request ended; redirects may name another place each time. */
int http_address_settle(struct http_address *address, const char *place, struct imgtk_error *err);
void http_address_free(struct http_address *address);

/* ---- Settings: options.c ----------------------------------------------------- */

extern const struct imgtk_opt http_options[];

/* Everything about `curl` that is the same for all requests. Reads the token's file into the address. */
int http_options_apply(const struct imgtk_opts *opts, CURL *curl, struct http_address *address,
                       struct imgtk_error *err);

/* ---- Handles: handles.c -------------------------------------------------------- */

/* A handle keeps its connection open between requests. */
struct http_handle {
    CURL *curl;
    bool busy;
    const char *url;                  /* what it asks: one of the address's two; NULL: not set yet */
    char reason[CURL_ERROR_SIZE];
};

struct http_handles {
    CURL *pattern;                    /* the others are copies of it */
    unsigned limit, count;
    pthread_mutex_t lock;             /* of `list` and `count`; a leaf */
    pthread_cond_t put;
    struct http_handle list[HTTP_MAX_CONNECTIONS];
};

/* Takes the pattern: it is cleaned up with the rest. */
void http_handles_init(struct http_handles *handles, CURL *pattern, unsigned limit);
void http_handles_destroy(struct http_handles *handles);
/* Blocks until one is free. NULL: out of memory. */
struct http_handle *http_handles_take(struct http_handles *handles);
void http_handles_put(struct http_handles *handles, struct http_handle *handle);

/* ---- Requests: request.c --------------------------------------------------------- */

struct http {
    struct http_address address;
    struct http_handles handles;
    unsigned retries, timeout;
    const struct imgtk_cancel *cancel; /* may be NULL; see http_is_over() */
    uint64_t spool_limit;
    struct curl_slist *conditions;     /* headers that make the server refuse when the content has changed */
    struct http_reply known;           /* the first reply, which later ones must agree with; code 0: none yet */
    uint64_t size;
    atomic_bool place_is_gone;         /* requests go to the address itself again */
    uint8_t *start;                    /* the first bytes, `start_length` of them */
    size_t start_length;
    struct imgtk_cache *cache;
    struct http_ahead *ahead;
    atomic_bool closing;               /* what is being read ahead is not waited for */
    struct http_stream *stream;        /* of a server without ranges, else NULL */
};

/* The job was interrupted or is at its end: what is under way is given up. */
static inline bool http_is_over(const struct http *http)
{
    return imgtk_cancel_reason(http->cancel) != 0 || atomic_load(&http->closing);
}

/* Exactly the range, which lies within the file. Called by any number of threads. */
int http_get(struct http *http, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
/* The same for bytes that may never be needed: gives up soon. */
int http_get_ahead(struct http *http, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
/* The first request: fills `known`, and `start` with up to HTTP_BLOCK bytes; *ranges false: it must be streamed. */
int http_get_start(struct http *http, bool *ranges, struct imgtk_error *err);

/* Where a handle asks next, and as whom; `url` is one of the address's two. */
int http_set_address(const struct http *http, struct http_handle *handle, const char *url, struct imgtk_error *err);
/* What went wrong with a request that has ended. `offset`: as far as it came. */
int http_explain(const struct http *http, const struct http_handle *handle, CURLcode code, uint64_t offset,
                 struct imgtk_error *err);
/* For CURLOPT_HEADERFUNCTION: `reply` is a struct http_reply. Too many headers end the request. */
size_t http_on_header(char *line, size_t unit, size_t count, void *reply);

/* ---- Which reads go through the file in order: front.c ------------------------------ */

enum { HTTP_FRONTS = 4 };

struct http_front {
    uint64_t begin, end;              /* what reads have gone through, as far as it is remembered */
    uint64_t read;                    /* how much of it they read */
    uint64_t asked;                   /* as far as it has been read ahead */
    uint64_t used;                    /* when: the number of the read; 0: never */
};

struct http_fronts { /* all zero: nothing has been read */
    struct http_front list[HTTP_FRONTS];
    uint64_t reads;
};

/* Takes note of a read. The front that it belongs to; NULL: the reads there are not, or not yet, in order. */
struct http_front *http_fronts_note(struct http_fronts *fronts, uint64_t offset, uint64_t length);
uint64_t http_front_passed(const struct http_front *front);
void http_fronts_forget(struct http_fronts *fronts);

/* ---- Reading ahead: ahead.c --------------------------------------------------------- */

int http_ahead_new(struct http *http, struct http_ahead **out, struct imgtk_error *err);
/* Ends the requests that are under way, if http->closing is set. */
void http_ahead_free(struct http_ahead *ahead);
/* Takes note of a read that begins; what comes behind it may be asked for. */
void http_ahead_note(struct http_ahead *ahead, size_t length, uint64_t offset);
/*
 * Copies what has been read ahead from offset on, up to length bytes, waiting for what is on its way. Returns 0 where
 * nothing has; then *gap is how many bytes, up to length, the caller has to ask for.
 */
size_t http_ahead_take(struct http_ahead *ahead, void *buf, size_t length, uint64_t offset, size_t *gap);

/* ---- One reply, read as it comes: stream.c ----------------------------------------- */

int http_stream_open(struct http *http, struct http_stream **out, struct imgtk_error *err);
void http_stream_close(struct http_stream *stream);
const struct http_reply *http_stream_reply(const struct http_stream *stream);
/* The next bytes; *done < length only at the end. */
int http_stream_read(struct http_stream *stream, void *buf, size_t length, size_t *done, struct imgtk_error *err);

#endif
