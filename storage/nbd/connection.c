/* Connecting and disconnecting. */
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
    bool failed = nbd_add_meta_context(handle, nbd_context_names[NBD_ALLOCATION]) < 0 ||
                  (settings->depth && nbd_add_meta_context(handle, nbd_context_names[NBD_DEPTH]) < 0) ||
                  /* What a URI may name is the user's business: he typed it. */
                  nbd_set_uri_allow_local_file(handle, true) < 0 ||
                  /* Nor does libnbd have to clear what a reply will fill: a request whose bytes do not all come fails. */
                  nbd_set_pread_initialize(handle, false) < 0 ||
                  nbd_set_tls_verify_peer(handle, settings->tls_verify_peer) < 0;
    if (settings->tls_certificates)
        failed = failed || nbd_set_tls_certificates(handle, settings->tls_certificates) < 0;
    if (settings->tls_username)
        failed = failed || nbd_set_tls_username(handle, settings->tls_username) < 0;
    if (settings->tls_psk_file)
        failed = failed || nbd_set_tls_psk_file(handle, settings->tls_psk_file) < 0;
    return failed ? fail_nbd(err, "cannot set up the connection") : 0;
}

time_t nbd_seconds(void)
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

static int wait_until_ready(struct nbd_handle *handle, const struct nbd_settings *settings, struct imgtk_error *err)
{
    const unsigned timeout = settings->timeout;
    time_t begun = nbd_seconds();
    while (!nbd_aio_is_ready(handle)) {
        if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle) || turn(handle) < 0)
            return fail_nbd(err, "cannot connect");
        if (imgtk_cancel_reason(settings->cancel))
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
        if (timeout && nbd_seconds() - begun >= (time_t)timeout)
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
    connection->handle = nbd_create();
    if (!connection->handle || connection->wake < 0)
        return fail_nbd(err, "cannot make a connection");
    int status = configure(connection->handle, settings, err);
    if (status)
        return status;
    int result = words ? nbd_aio_connect_systemd_socket_activation(connection->handle, words)
                       : nbd_aio_connect_uri(connection->handle, uri);
    return result < 0 ? fail_nbd(err, "cannot connect") : wait_until_ready(connection->handle, settings, err);
}

/* ---- Closing ------------------------------------------------------------------ */

/* Tells the server, and gives it a moment to end by itself. */
static void say_goodbye(struct nbd_handle *handle)
{
    if (nbd_aio_disconnect(handle, 0) < 0)
        return;
    time_t begun = nbd_seconds();
    while (!nbd_aio_is_dead(handle) && !nbd_aio_is_closed(handle) && nbd_seconds() - begun < 2 && turn(handle) >= 0)
        ;
}

void nbd_connection_close(struct nbd_connection *connection)
{
    nbd_connection_stop(connection);
    if (connection->handle && connection->has_thread)
        say_goodbye(connection->handle);
    nbd_close(connection->handle);
    if (connection->wake >= 0)
        close(connection->wake);
    pthread_mutex_destroy(&connection->lock);
}
