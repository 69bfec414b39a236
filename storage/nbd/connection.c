/*
 * One connection and its thread, the only one that talks to libnbd: callers queue requests and wait, so that many of
 * them are on their way at once, whoever sent them.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "nbd.h"

/* ---- Connecting -------------------------------------------------------------- */

/* libnbd's message without the name of its function, which tells a user nothing. */
static int fail_nbd(struct imgtk_error *err, const char *what)
{
    const char *message = nbd_get_error();
    const char *colon = message ? strstr(message, ": ") : NULL;
    if (colon && strncmp(message, "nbd_", 4) == 0)
        message = colon + 2;
    return imgtk_fail(err, IMGTK_EIO, "%s: %s", what, message ? message : "unknown error");
}

static int configure(struct nbd_handle *handle, const struct nbd_settings *settings, struct imgtk_error *err)
{
    bool failed = nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
                  /* What a URI may name is the user's business: he typed it. */
                  nbd_set_uri_allow_local_file(handle, true) < 0 ||
                  nbd_set_tls_verify_peer(handle, settings->tls_verify_peer) < 0;
    if (settings->tls_certificates)
        failed = failed || nbd_set_tls_certificates(handle, settings->tls_certificates) < 0;
    if (settings->tls_username)
        failed = failed || nbd_set_tls_username(handle, settings->tls_username) < 0;
    if (settings->tls_psk_file)
        failed = failed || nbd_set_tls_psk_file(handle, settings->tls_psk_file) < 0;
    return failed ? fail_nbd(err, "cannot set up the connection") : 0;
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

/* Moves the connection on, as far as it goes within a second. <0: it is broken. */
static int turn(struct nbd_handle *handle)
{
    return nbd_poll(handle, 1000);
}

static int wait_until_ready(struct nbd_handle *handle, unsigned timeout, struct imgtk_error *err)
{
    time_t begun = now();
    while (!nbd_aio_is_ready(handle)) {
        if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle) || turn(handle) < 0)
            return fail_nbd(err, "cannot connect");
        if (timeout && now() - begun >= (time_t)timeout)
            return imgtk_fail(err, IMGTK_EIO, "cannot connect: the server does not answer (waited %u seconds)",
                              timeout);
    }
    return 0;
}

int nbd_connection_open(struct nbd_connection *connection, const struct nbd_settings *settings, const char *uri,
                        char **words, struct imgtk_error *err)
{
    memset(connection, 0, sizeof(*connection));
    connection->settings = *settings;
    connection->queue_end = &connection->queue;
    connection->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&connection->lock, NULL);
    pthread_cond_init(&connection->done, NULL);
    connection->handle = nbd_create();
    if (!connection->handle || connection->wake < 0)
        return fail_nbd(err, "cannot make a connection");
    int status = configure(connection->handle, settings, err);
    if (status)
        return status;
    int result = words ? nbd_aio_connect_systemd_socket_activation(connection->handle, words)
                       : nbd_aio_connect_uri(connection->handle, uri);
    return result < 0 ? fail_nbd(err, "cannot connect") : wait_until_ready(connection->handle, settings->timeout, err);
}

/* ---- Requests: in the connection's thread -------------------------------------- */

static void unlink_flying(struct nbd_connection *connection, struct nbd_request *request)
{
    struct nbd_request **at = &connection->flying;
    while (*at && *at != request)
        at = &(*at)->next;
    if (*at) {
        *at = request->next;
        connection->in_flight--;
    }
}

static void finish(struct nbd_request *request, int error)
{
    struct nbd_connection *connection = request->connection;
    pthread_mutex_lock(&connection->lock);
    unlink_flying(connection, request);
    request->error = error;
    request->done = true;
    pthread_cond_broadcast(&connection->done);
    pthread_mutex_unlock(&connection->lock);
}

static int on_done(void *request, int *error)
{
    finish(request, *error);
    return 1; /* libnbd may forget it */
}

static int on_extents(void *context, const char *name, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    struct nbd_status *status = ((struct nbd_request *)context)->status_out;
    if (*error || strcmp(name, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    status->start = offset;
    status->count = 0;
    for (size_t i = 0; i + 1 < count && status->count < NBD_MAX_STATUS; i += 2) {
        if (entries[i] == 0)
            break;
        status->extents[status->count].length = entries[i];
        status->extents[status->count++].zero = entries[i + 1] & LIBNBD_STATE_ZERO;
    }
    return 0;
}

static int64_t hand_over(struct nbd_handle *handle, struct nbd_request *request)
{
    nbd_completion_callback done = { .callback = on_done, .user_data = request };
    switch (request->command) {
    case NBD_READ:
        return nbd_aio_pread(handle, request->buf, (size_t)request->length, request->offset, done, 0);
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

/* The next request that may set out, moved to those that are flying. */
static struct nbd_request *take(struct nbd_connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    struct nbd_request *request = connection->queue;
    if (request && connection->in_flight < connection->settings.requests) {
        connection->queue = request->next;
        if (!connection->queue)
            connection->queue_end = &connection->queue;
        request->next = connection->flying;
        connection->flying = request;
        connection->in_flight++;
    } else {
        request = NULL;
    }
    pthread_mutex_unlock(&connection->lock);
    return request;
}

static void send_queued(struct nbd_connection *connection)
{
    for (struct nbd_request *request; (request = take(connection)) != NULL;)
        if (hand_over(connection->handle, request) < 0)
            finish(request, nbd_get_errno() ? nbd_get_errno() : EIO);
}

static unsigned flying(struct nbd_connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    unsigned count = connection->in_flight;
    pthread_mutex_unlock(&connection->lock);
    return count;
}

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

/* Nothing is written into the callers' buffers any more once the handle is closed. */
static void fail_all(struct nbd_connection *connection, int error)
{
    nbd_close(connection->handle);
    connection->handle = NULL;
    pthread_mutex_lock(&connection->lock);
    connection->dead = error;
    struct nbd_request *lists[2] = { connection->flying, connection->queue };
    connection->flying = connection->queue = NULL;
    connection->queue_end = &connection->queue;
    connection->in_flight = 0;
    for (size_t i = 0; i < 2; i++) {
        for (struct nbd_request *request = lists[i], *next; request; request = next) {
            next = request->next;
            request->error = error;
            request->done = true;
        }
    }
    pthread_cond_broadcast(&connection->done);
    pthread_mutex_unlock(&connection->lock);
}

static bool is_stopped(struct nbd_connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    bool stopped = connection->stop;
    pthread_mutex_unlock(&connection->lock);
    return stopped;
}

static void *serve(void *context)
{
    struct nbd_connection *connection = context;
    time_t heard = now();
    while (!is_stopped(connection)) {
        send_queued(connection);
        if (nbd_aio_is_dead(connection->handle) || nbd_aio_is_closed(connection->handle)) {
            fail_all(connection, ENOTCONN);
            break;
        }
        if (wait_and_move(connection) || flying(connection) == 0)
            heard = now();
        else if (connection->settings.timeout && now() - heard >= (time_t)connection->settings.timeout) {
            fail_all(connection, ETIMEDOUT);
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

/* ---- Requests: in the callers' threads ------------------------------------------- */

static void wake(struct nbd_connection *connection)
{
    const uint64_t one = 1;
    ssize_t written = write(connection->wake, &one, sizeof(one)); /* full: it is awake */
    (void)written;
}

void nbd_connection_send(struct nbd_connection *connection, struct nbd_request *request)
{
    request->connection = connection;
    request->next = NULL;
    request->done = false;
    pthread_mutex_lock(&connection->lock);
    if (connection->dead) {
        request->error = connection->dead;
        request->done = true;
    } else {
        *connection->queue_end = request;
        connection->queue_end = &request->next;
    }
    pthread_mutex_unlock(&connection->lock);
    wake(connection);
}

void nbd_connection_wait(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    pthread_mutex_lock(&connection->lock);
    while (!request->done)
        pthread_cond_wait(&connection->done, &connection->lock);
    pthread_mutex_unlock(&connection->lock);
}

/* Tells the server, and gives it a moment to end by itself. */
static void say_goodbye(struct nbd_handle *handle)
{
    if (nbd_aio_disconnect(handle, 0) < 0)
        return;
    time_t begun = now();
    while (!nbd_aio_is_dead(handle) && !nbd_aio_is_closed(handle) && now() - begun < 2 && turn(handle) >= 0)
        ;
}

void nbd_connection_close(struct nbd_connection *connection)
{
    if (connection->has_thread) {
        pthread_mutex_lock(&connection->lock);
        connection->stop = true;
        pthread_mutex_unlock(&connection->lock);
        wake(connection);
        pthread_join(connection->thread, NULL);
    }
    if (connection->handle && connection->has_thread)
        say_goodbye(connection->handle);
    nbd_close(connection->handle);
    if (connection->wake >= 0)
        close(connection->wake);
    pthread_cond_destroy(&connection->done);
    pthread_mutex_destroy(&connection->lock);
}
