/* What the sources of the NBD storage share. */
#ifndef IMGTK_NBD_H
#define IMGTK_NBD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

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

/* What a server said about a range: `count` extents that follow each other from `start` on. */
struct nbd_status {
    uint64_t start;
    size_t count;
    struct { uint64_t length; bool zero; } extents[NBD_MAX_STATUS];
};

/* Belongs to the caller, who waits for it; the connection's thread fills what is marked as out. */
struct nbd_request {
    enum nbd_command command;
    void *buf;
    uint64_t length, offset;
    uint32_t flags;                   /* LIBNBD_CMD_FLAG_* */
    struct nbd_status *status_out;    /* STATUS */
    int error;                        /* out: errno, 0 when it went well */
    bool done;                        /* out */
    struct nbd_connection *connection;
    struct nbd_request *next;
};

/* ---- One connection -------------------------------------------------------- */

struct nbd_settings {
    unsigned requests;                /* in flight at once, per connection */
    unsigned timeout;                 /* seconds that a server may take; 0: for ever */
    const char *tls_certificates, *tls_username, *tls_psk_file;
    bool tls_verify_peer;
};

struct nbd_connection {
    struct nbd_handle *handle;        /* only the connection's thread uses it once that runs */
    struct nbd_settings settings;
    pthread_t thread;
    bool has_thread;
    int wake;                         /* an eventfd: there is something in the queue, or it is to stop */
    pthread_mutex_t lock;             /* of what follows; a leaf */
    pthread_cond_t done;
    struct nbd_request *queue, **queue_end;
    struct nbd_request *flying;       /* handed to libnbd, not answered yet */
    unsigned in_flight;
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
/* Starts the thread; from then on requests may be sent, by any number of threads. */
int nbd_connection_start(struct nbd_connection *connection, struct imgtk_error *err);
void nbd_connection_send(struct nbd_connection *connection, struct nbd_request *request);
/* Blocks until the request is answered, or has failed. */
void nbd_connection_wait(struct nbd_request *request);

/* ---- Commands -------------------------------------------------------------- */

/* "[ nbdkit 'a b' ]" into words, all in one block of memory that the caller frees; quoting as in a shell. */
int nbd_command_split(const char *text, char ***out, struct imgtk_error *err);

#endif
