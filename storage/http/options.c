/* The options of the storage, and what libcurl is told of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http.h"
#include "imgtk/driver.h"

#define RECEIVE_BUFFER (256L << 10)
#define SLOWEST 100L /* bytes per second; less is as good as nothing */

const struct imgtk_opt http_options[] = {
    { .name = "connections", .type = IMGTK_OPT_UINT, .default_text = "8", .min = 1, .max = HTTP_MAX_CONNECTIONS,
      .help = "Connections at once, with a request each" },
    { .name = "timeout", .type = IMGTK_OPT_UINT, .default_text = "60", .max = 86400,
      .help = "Seconds that a server may be silent while it owes an answer; 0: for ever" },
    { .name = "retries", .type = IMGTK_OPT_UINT, .default_text = "5", .max = 100,
      .help = "How often a request is sent again after the connection was lost" },
    { .name = "redirects", .type = IMGTK_OPT_UINT, .default_text = "10", .max = 50,
      .help = "How many redirects are followed" },
    { .name = "spool-limit", .type = IMGTK_OPT_SIZE, .default_text = "64G",
      .help = "How much of a file is put into a temporary one where the server knows no ranges" },
    { .name = "netrc", .type = IMGTK_OPT_BOOL, .default_text = "off", .help = "Take user and password from ~/.netrc" },
    { .name = "netrc-file", .type = IMGTK_OPT_STRING, .help = "Take user and password from that file instead" },
    { .name = "token-file", .type = IMGTK_OPT_STRING, .help = "File with a bearer token" },
    { .name = "tls-ca-file", .type = IMGTK_OPT_STRING, .help = "File with the certificates that check a server's" },
    { .name = "tls-ca-path", .type = IMGTK_OPT_STRING, .help = "Folder with such certificates" },
    { .name = "tls-certificate", .type = IMGTK_OPT_STRING, .help = "File with the client's certificate" },
    { .name = "tls-key", .type = IMGTK_OPT_STRING, .help = "File with the key of that certificate" },
    { .name = "tls-verify-peer", .type = IMGTK_OPT_BOOL, .default_text = "on",
      .help = "Check the server's certificate" },
    { .name = NULL },
};

/* ---- Files that options name ---------------------------------------------------- */

static int require_readable(const struct imgtk_opts *opts, const char *option, struct imgtk_error *err)
{
    const char *path = imgtk_opts_text(opts, option);
    if (!path || access(path, R_OK) == 0)
        return 0;
    return imgtk_fail_errno(err, errno, "cannot read '%s' (%s)", path, option);
}

/* As much of the file as `size` has room for. <0: errno says why. */
static ssize_t read_file(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    size_t length = 0;
    ssize_t count = 1;
    while (length < size && (count = read(fd, out + length, size - length)) > 0)
        length += (size_t)count;
    int saved = errno;
    close(fd);
    errno = saved;
    return count < 0 ? -1 : (ssize_t)length;
}

/* The text without the line's end; a token has no letters that could end a header. */
static bool cut_token(char *text, size_t length)
{
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r' || text[length - 1] == ' '))
        length--;
    text[length] = '\0';
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return length > 0;
}

static int read_token(const char *path, char **out, struct imgtk_error *err)
{
    char *text = calloc(1, HTTP_MAX_TOKEN + 1);
    if (!text)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    ssize_t length = read_file(path, text, HTTP_MAX_TOKEN);
    int status = 0;
    if (length < 0)
        status = imgtk_fail_errno(err, errno, "cannot read '%s' (token-file)", path);
    else if (length == HTTP_MAX_TOKEN || !cut_token(text, (size_t)length))
        status = imgtk_fail(err, IMGTK_EINVAL, "'%s' holds no token: one line of letters without blanks", path);
    if (status) {
        explicit_bzero(text, HTTP_MAX_TOKEN);
        free(text);
        return status;
    }
    *out = text;
    return 0;
}

/* ---- libcurl ------------------------------------------------------------------------ */

/* Not to be left for a protocol that is not encrypted, whatever a server says. */
static const char *protocols_for(const struct http_address *address)
{
    return strncmp(address->url, "https:", 6) == 0 ? "https" : "http,https";
}

static bool set_transport(const struct imgtk_opts *opts, CURL *curl, const struct http_address *address)
{
    long timeout = (long)imgtk_opts_number(opts, "timeout");
    return curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_USERAGENT, "imgtk/" IMGTK_VERSION) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, protocols_for(address)) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)imgtk_opts_number(opts, "redirects")) == CURLE_OK &&
           /* A connection has one request at a time, so HTTP/2 has nothing to give. */
           curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, timeout ? timeout : 86400L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, timeout) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, timeout ? SLOWEST : 0L) == CURLE_OK;
}

/* What was not given stays as libcurl has it. */
static bool set_text(const struct imgtk_opts *opts, const char *option, CURL *curl, CURLoption where)
{
    const char *text = imgtk_opts_text(opts, option);
    return !text || curl_easy_setopt(curl, where, text) == CURLE_OK;
}

static bool set_trust(const struct imgtk_opts *opts, CURL *curl)
{
    bool verify = imgtk_opts_bool(opts, "tls-verify-peer");
    bool netrc = imgtk_opts_bool(opts, "netrc") || imgtk_opts_text(opts, "netrc-file");
    long use_netrc = netrc ? CURL_NETRC_OPTIONAL : CURL_NETRC_IGNORED;
    return curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, verify ? 1L : 0L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_NETRC, use_netrc) == CURLE_OK &&
           set_text(opts, "netrc-file", curl, CURLOPT_NETRC_FILE) &&
           set_text(opts, "tls-ca-file", curl, CURLOPT_CAINFO) &&
           set_text(opts, "tls-ca-path", curl, CURLOPT_CAPATH) &&
           set_text(opts, "tls-certificate", curl, CURLOPT_SSLCERT) && set_text(opts, "tls-key", curl, CURLOPT_SSLKEY);
}

int http_options_apply(const struct imgtk_opts *opts, CURL *curl, struct http_address *address,
                       struct imgtk_error *err)
{
    static const char *const files[] = { "netrc-file", "tls-ca-file", "tls-ca-path", "tls-certificate", "tls-key" };
    const char *token = imgtk_opts_text(opts, "token-file");
    int status = token ? read_token(token, &address->token, err) : 0;
    for (size_t i = 0; !status && i < sizeof(files) / sizeof(files[0]); i++)
        status = require_readable(opts, files[i], err);
    if (!status && !(set_transport(opts, curl, address) && set_trust(opts, curl)))
        status = imgtk_fail(err, IMGTK_EINVAL, "libcurl does not take the settings");
    return status;
}
