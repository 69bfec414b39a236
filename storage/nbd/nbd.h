/* What the sources of the NBD storage share. */
#ifndef IMGTK_NBD_H
#define IMGTK_NBD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <libnbd.h>

#include "imgtk/storage.h"

enum {
    NBD_MAX_CONNECTIONS = 64,
    NBD_MAX_WORDS = 256,              /* of a command */
    NBD_MAX_STATUS = 4096,            /* extents kept of one reply */
    NBD_MAX_BLOCK = 64 << 10          /* the largest smallest block of a server that we go along with */
};

/* ---- One request on its way ------------------------------------------------ */

enum nbd_command { NBD_READ, NBD_WRITE, NBD_ZERO, NBD_FLUSH, NBD_STATUS };

/* What a server can tell of a range, each in a meta context of its own. */
enum nbd_context { NBD_ALLOCATION, NBD_DEPTH, NBD_CONTEXTS };
extern const char *const nbd_context_names[NBD_CONTEXTS];

/* What a server said about a range in one context: `count` extents that follow each other from `start` on. */
struct nbd_status {
    uint64_t start;
    size_t count;
    struct { uint64_t length; uint32_t value; } extents[NBD_MAX_STATUS];
};

/* Requests that one caller waits for together. */
struct nbd_batch {
    pthread_mutex_t lock;             /* of `pending`; a leaf */
    pthread_cond_t done;
    size_t pending;
};

/* Belongs to the caller; the connection's thread fills what is marked as out. */
struct nbd_request {
    enum nbd_command command;
    void *buf;
    uint64_t length, offset;
    uint32_t flags;                   /* LIBNBD_CMD_FLAG_* */
    struct nbd_status *status_out[NBD_CONTEXTS]; /* STATUS; NULL: not asked for */
    uint64_t received;                /* READ: bytes that the server has sent, from the beginning of the range */
    int error;                        /* out: errno, 0 when it went well */
    struct nbd_batch *batch;
    struct nbd_connection *connection;
    struct nbd_request *next, **at;   /* at: what points to it among those that are flying */
};

/* ---- One connection -------------------------------------------------------- */

struct nbd_settings {
    unsigned requests;                 /* in flight at once, per connection */
    unsigned timeout;                  /* seconds that a server may take; 0: for ever */
    const struct imgtk_cancel *cancel; /* may be NULL; after it nobody waits any more for a server that is silent */
    bool depth;                        /* ask for NBD_DEPTH, too */
    const char *tls_certificates, *tls_username, *tls_psk_file;
    bool tls_verify_peer;
};

struct nbd_connection {
    struct nbd_handle *handle;        /* only the connection's thread uses it, and what follows, once that runs */
    struct nbd_settings settings;
    struct nbd_request *flying;       /* handed to libnbd, not answered yet */
    unsigned in_flight;
    const struct nbd_request *at_hand; /* being handed to libnbd, not answered yet */
    bool contradicted;                /* an answer was one that the protocol does not allow */
    pthread_t thread;
    bool has_thread;
    int wake;                         /* an eventfd: there is something in the queue, or it is to stop */
    pthread_mutex_t lock;             /* of what follows; taken before a batch's */
    struct nbd_request *queue, **queue_end;
    bool woken;                       /* `wake` has been written and the queue not been looked at since */
    bool stop;
    int dead;                         /* errno with which everything fails from now on; 0: alive */
};

/*
 * connection.c. Either `uri` or `words` (NULL-terminated: a server to start) is set. Also after a failure,
 * nbd_connection_close() is to be called.
 */
int nbd_connection_open(struct nbd_connection *connection, const struct nbd_settings *settings, const char *uri,
                        char **words, struct imgtk_error *err);
void nbd_connection_close(struct nbd_connection *connection);
/* Of a clock that nobody sets. */
time_t nbd_seconds(void);

/* requests.c. Starts the thread; from then on requests may be sent, by any number of threads. */
int nbd_connection_start(struct nbd_connection *connection, struct imgtk_error *err);
void nbd_connection_stop(struct nbd_connection *connection);
/* A batch of `count` requests, which are sent in any number of calls. */
void nbd_batch_begin(struct nbd_batch *batch, size_t count);
void nbd_connection_send(struct nbd_connection *connection, struct nbd_request *requests, size_t count);
/* Blocks until every request of the batch is answered, or has failed. */
void nbd_batch_wait(struct nbd_batch *batch);

/* ---- Commands -------------------------------------------------------------- */

/* "[ nbdkit 'a b' ]" into words, all in one block of memory that the caller frees; quoting as in a shell. */
int nbd_command_split(const char *text, char ***out, struct imgtk_error *err);

/* ---- An open export ---------------------------------------------------------- */

struct nbd {
    struct nbd_connection *connections;
    unsigned count;
    atomic_uint next;                 /* the connection that the next request takes */
    bool writable, can_zero, can_flush, can_fua;
    bool write_through;               /* a write is safe on the server's disk before it returns */
    bool tells[NBD_CONTEXTS];
    uint64_t size;
    uint32_t block;                   /* offsets and lengths are multiples of it */
    uint32_t request_size;            /* larger calls are cut */
    pthread_mutex_t partial;          /* held while a part of a block is rewritten */
    pthread_mutex_t lock;             /* of `status`; a leaf */
    struct nbd_status status[NBD_CONTEXTS]; /* the last answer */
    atomic_bool no_status;            /* the server has refused to tell */
};

/* transfer.c: the ops that move bytes. */
struct nbd_connection *nbd_choose_connection(struct nbd *nbd);
int nbd_fail_request(const struct nbd_request *request, struct imgtk_error *err);
int nbd_ops_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err);
int nbd_ops_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int nbd_ops_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err);
int nbd_ops_flush(void *handle, struct imgtk_error *err);

/* status.c: the ops that tell of ranges. */
int nbd_ops_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out, struct imgtk_error *err);
int nbd_ops_depth(void *handle, uint64_t offset, uint64_t length, struct imgtk_depth *out, struct imgtk_error *err);

#endif
