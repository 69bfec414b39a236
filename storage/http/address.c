/* URLs: who is asked for what, as whom, and where that led. */
#include <stdlib.h>
#include <string.h>

#include "http.h"

/* A part of the URL as a string of our own; *out NULL: it has none. Decoded: as it was before it went into a URL. */
static int take_part(CURLU *url, CURLUPart part, bool decode, char **out, struct imgtk_error *err)
{
    char *text = NULL;
    *out = NULL;
    if (curl_url_get(url, part, &text, decode ? CURLU_URLDECODE : 0) != CURLUE_OK)
        return 0;
    *out = strdup(text);
    curl_free(text);
    return *out ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

/* libcurl would put them into every message and every URL that it tells. */
static int take_credentials(CURLU *url, struct http_address *address, struct imgtk_error *err)
{
    int status = take_part(url, CURLUPART_USER, true, &address->user, err);
    if (!status)
        status = take_part(url, CURLUPART_PASSWORD, true, &address->password, err);
    if (!status && (curl_url_set(url, CURLUPART_USER, NULL, 0) != CURLUE_OK ||
                    curl_url_set(url, CURLUPART_PASSWORD, NULL, 0) != CURLUE_OK ||
                    curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0) != CURLUE_OK))
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    return status ? status : take_part(url, CURLUPART_URL, false, &address->url, err);
}

int http_address_parse(struct http_address *address, const char *text, struct imgtk_error *err)
{
    CURLU *url = curl_url();
    if (!url)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    CURLUcode code = curl_url_set(url, CURLUPART_URL, text, CURLU_URLENCODE);
    int status = code == CURLUE_OK ? take_credentials(url, address, err)
                                   : imgtk_fail(err, IMGTK_EINVAL, "not a URL: %s", curl_url_strerror(code));
    curl_url_cleanup(url);
    return status;
}

/* What decides whether credentials are meant for a server. */
static bool is_same_part(CURLU *one, CURLU *two, CURLUPart part)
{
    char *a = NULL, *b = NULL;
    bool same = curl_url_get(one, part, &a, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(two, part, &b, CURLU_DEFAULT_PORT) == CURLUE_OK && strcmp(a, b) == 0;
    curl_free(a);
    curl_free(b);
    return same;
}

static bool is_same_server(const char *one, const char *two)
{
    CURLU *a = curl_url(), *b = curl_url();
    bool same = a && b && curl_url_set(a, CURLUPART_URL, one, 0) == CURLUE_OK &&
                curl_url_set(b, CURLUPART_URL, two, 0) == CURLUE_OK && is_same_part(a, b, CURLUPART_SCHEME) &&
                is_same_part(a, b, CURLUPART_HOST) && is_same_part(a, b, CURLUPART_PORT);
    curl_url_cleanup(a);
    curl_url_cleanup(b);
    return same;
}

int http_address_settle(struct http_address *address, const char *place, struct imgtk_error *err)
{
    if (!place || strcmp(place, address->url) == 0)
        return 0;
    address->place = strdup(place);
    address->place_is_foreign = !is_same_server(address->url, place);
    return address->place ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

/* Secrets do not stay in memory that is used again. */
static void forget(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

void http_address_free(struct http_address *address)
{
    forget(address->user);
    forget(address->password);
    forget(address->token);
    free(address->url);
    free(address->place);
    memset(address, 0, sizeof(*address));
}
