/*
 * The thread of a connection, the only one that talks to libnbd: callers queue requests and wait, so that many of them
 * are on their way at once, whoever sent them.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nbd.h"

/* ---- Batches -------------------------------------------------------------------- */

void nbd_batch_begin(struct nbd_batch *batch, size_t count)
{
    pthread_mutex_init(&batch->lock, NULL);
    pthread_cond_init(&batch->done, NULL);
    batch->pending = count;
}

/* The request, and with the last one the batch, is the caller's again. */
static void finish(struct nbd_request *request, int error)
{
    struct nbd_batch *batch = request->batch;
    request->error = error;
    pthread_mutex_lock(&batch->lock);
    if (--batch->pending == 0)
        pthread_cond_signal(&batch->done);
    pthread_mutex_unlock(&batch->lock);
}

void nbd_batch_wait(struct nbd_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    while (batch->pending > 0)
        pthread_cond_wait(&batch->done, &batch->lock);
    pthread_mutex_unlock(&batch->lock);
    pthread_cond_destroy(&batch->done);
    pthread_mutex_destroy(&batch->lock);
}

/* ---- What the server answers ------------------------------------------------------ */

static int on_done(void *context, int *error)
{
    struct nbd_request *request = context;
    struct nbd_connection *connection = request->connection;
    *request->at = request->next;
    if (request->next)
        request->next->at = request->at;
    connection->in_flight--;
    bool is_short = request->command == NBD_READ && request->received < request->length;
    bool at_hand = connection->at_hand == request;
    if (at_hand)
        connection->at_hand = NULL;
    finish(request, *error ? *error : is_short ? EPROTO : 0);
    return at_hand ? 0 : 1; /* 1: libnbd may forget it, which it does too early while it is taking it over */
}

/* libnbd leaves what was there where a server sends nothing, and does not mind a range that is sent again and again. */
static int on_chunk(void *context, const void *bytes, size_t count, uint64_t offset, unsigned status, int *error)
{
    (void)bytes;
    struct nbd_request *request = context;
    if (*error || status == LIBNBD_READ_ERROR)
        return 0;
    if (offset != request->offset + request->received)
        request->connection->contradicted = true;
    request->received += count;
    return 0;
}

static void keep_extents(struct nbd_status *status, uint64_t offset, const uint32_t *entries, size_t count)
{
    status->start = offset;
    status->count = 0;
    for (size_t i = 0; i + 1 < count && status->count < NBD_MAX_STATUS; i += 2) {
        if (entries[i] == 0)
            break;
        status->extents[status->count].length = entries[i];
        status->extents[status->count++].value = entries[i + 1];
    }
}

static int on_extents(void *context, const char *name, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    const struct nbd_request *request = context;
    for (size_t i = 0; !*error && i < NBD_CONTEXTS; i++)
        if (request->status_out[i] && strcmp(name, nbd_context_names[i]) == 0)
            keep_extents(request->status_out[i], offset, entries, count);
    return 0;
}

/* ---- Sending ---------------------------------------------------------------------- */

static int64_t hand_over(struct nbd_handle *handle, struct nbd_request *request)
{
    nbd_completion_callback done = { .callback = on_done, .user_data = request };
    switch (request->command) {
    case NBD_READ:
        return nbd_aio_pread_structured(handle, request->buf, (size_t)request->length, request->offset,
                                        (nbd_chunk_callback){ .callback = on_chunk, .user_data = request }, done, 0);
    case NBD_WRITE:
        return nbd_aio_pwrite(handle, request->buf, (size_t)request->length, request->offset, done, request->flags);
    case NBD_ZERO:
        return nbd_aio_zero(handle, request->length, request->offset, done, request->flags);
    case NBD_FLUSH:
        return nbd_aio_flush(handle, done, 0);
    case NBD_STATUS:
        break;
    }
    return nbd_aio_block_status(handle, request->length, request->offset,
                                (nbd_extent_callback){ .callback = on_extents, .user_data = request }, done, 0);
}

static bool is_lost(const struct nbd_connection *connection)
{
    return nbd_aio_is_dead(connection->handle) || nbd_aio_is_closed(connection->handle);
}

/* Why libnbd takes no request. A connection that was lost since the last look is but an "invalid state" to it. */
static int refusal(const struct nbd_connection *connection)
{
    int error = nbd_get_errno();
    if (is_lost(connection))
        return ENOTCONN;
    return error ? error : EIO;
}

static void send_one(struct nbd_connection *connection, struct nbd_request *request)
{
    request->next = connection->flying;
    request->at = &connection->flying;
    if (request->next)
        request->next->at = &request->next;
    connection->flying = request;
    connection->in_flight++;
    connection->at_hand = request;
    int64_t cookie = hand_over(connection->handle, request);
    if (cookie < 0 && connection->at_hand)
        on_done(request, &(int){ refusal(connection) });
    connection->at_hand = NULL;
}

/* The requests that may set out now, in a list. *stopped: no more will come. */
static struct nbd_request *take(struct nbd_connection *connection, bool *stopped)
{
    struct nbd_request *first = NULL, **end = &first;
    pthread_mutex_lock(&connection->lock);
    for (unsigned room = connection->settings.requests - connection->in_flight; room > 0 && connection->queue; room--) {
        *end = connection->queue;
        end = &connection->queue->next;
        connection->queue = *end;
    }
    *end = NULL;
    if (!connection->queue)
        connection->queue_end = &connection->queue;
    connection->woken = false;
    *stopped = connection->stop;
    pthread_mutex_unlock(&connection->lock);
    return first;
}

static void send_queued(struct nbd_connection *connection, bool *stopped)
{
    for (struct nbd_request *request = take(connection, stopped), *next; request; request = next) {
        next = request->next;
        send_one(connection, request);
    }
}

/* ---- The thread --------------------------------------------------------------------- */

/* Waits for the server or for callers, and moves the connection on. Returns false when nothing came for a second. */
static bool wait_and_move(struct nbd_connection *connection)
{
    unsigned direction = nbd_aio_get_direction(connection->handle);
    struct pollfd fds[2] = { { .fd = nbd_aio_get_fd(connection->handle) },
                             { .fd = connection->wake, .events = POLLIN } };
    if (direction & LIBNBD_AIO_DIRECTION_READ)
        fds[0].events |= POLLIN;
    if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        fds[0].events |= POLLOUT;
    if (poll(fds, 2, 1000) <= 0)
        return false;
    uint64_t count;
    if (fds[1].revents && read(connection->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return false;
    if (fds[0].revents & (POLLIN | POLLHUP | POLLERR))
        nbd_aio_notify_read(connection->handle);
    else if (fds[0].revents & POLLOUT)
        nbd_aio_notify_write(connection->handle);
    return fds[0].revents != 0;
}

static void fail_list(struct nbd_request *request, int error)
{
    for (struct nbd_request *next; request; request = next) {
        next = request->next;
        finish(request, error);
    }
}

/* Nothing is written into the callers' buffers any more once the handle is closed. */
static void fail_all(struct nbd_connection *connection, int error)
{
    nbd_close(connection->handle);
    connection->handle = NULL;
    pthread_mutex_lock(&connection->lock);
    connection->dead = error;
    struct nbd_request *queue = connection->queue, *flying = connection->flying;
    connection->queue = NULL;
    connection->queue_end = &connection->queue;
    pthread_mutex_unlock(&connection->lock);
    connection->flying = NULL;
    connection->in_flight = 0;
    fail_list(flying, error);
    fail_list(queue, error);
}

static void *serve(void *context)
{
    struct nbd_connection *connection = context;
    const unsigned timeout = connection->settings.timeout;
    const struct imgtk_cancel *cancel = connection->settings.cancel;
    time_t heard = nbd_seconds();
    for (;;) {
        bool stopped;
        send_queued(connection, &stopped);
        if (stopped)
            break;
        if (connection->contradicted || is_lost(connection)) {
            fail_all(connection, connection->contradicted ? EPROTO : ENOTCONN);
            break;
        }
        if (wait_and_move(connection) || connection->in_flight == 0)
            heard = nbd_seconds();
        else if (imgtk_cancel_reason(cancel) || (timeout && nbd_seconds() - heard >= (time_t)timeout)) {
            fail_all(connection, imgtk_cancel_reason(cancel) ? ECANCELED : ETIMEDOUT);
            break;
        }
    }
    return NULL;
}

int nbd_connection_start(struct nbd_connection *connection, struct imgtk_error *err)
{
    int error = pthread_create(&connection->thread, NULL, serve, connection);
    connection->has_thread = error == 0;
    return error ? imgtk_fail_errno(err, error, "cannot start a thread") : 0;
}

/* ---- In the callers' threads ----------------------------------------------------------- */

static void wake(struct nbd_connection *connection)
{
    const uint64_t one = 1;
    ssize_t written = write(connection->wake, &one, sizeof(one)); /* full: it is awake */
    (void)written;
}

void nbd_connection_stop(struct nbd_connection *connection)
{
    if (!connection->has_thread)
        return;
    pthread_mutex_lock(&connection->lock);
    connection->stop = true;
    pthread_mutex_unlock(&connection->lock);
    wake(connection);
    pthread_join(connection->thread, NULL);
}

void nbd_connection_send(struct nbd_connection *connection, struct nbd_request *requests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        requests[i].connection = connection;
        requests[i].next = i + 1 < count ? &requests[i + 1] : NULL;
    }
    pthread_mutex_lock(&connection->lock);
    int dead = connection->dead;
    bool asleep = !dead && !connection->woken;
    if (!dead) {
        *connection->queue_end = requests;
        connection->queue_end = &requests[count - 1].next;
        connection->woken = true;
    }
    pthread_mutex_unlock(&connection->lock);
    if (dead)
        fail_list(requests, dead);
    else if (asleep)
        wake(connection);
}
