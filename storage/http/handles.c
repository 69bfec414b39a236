/* Handles for requests that run at once. */
#include <string.h>

#include "http.h"

void http_handles_init(struct http_handles *handles, CURL *pattern, unsigned limit)
{
    memset(handles, 0, sizeof(*handles));
    handles->pattern = pattern;
    handles->limit = limit;
    pthread_mutex_init(&handles->lock, NULL);
    pthread_cond_init(&handles->put, NULL);
}

void http_handles_destroy(struct http_handles *handles)
{
    for (unsigned i = 0; i < handles->count; i++)
        curl_easy_cleanup(handles->list[i].curl);
    curl_easy_cleanup(handles->pattern);
    pthread_cond_destroy(&handles->put);
    pthread_mutex_destroy(&handles->lock);
}

/* The first that is free, so that few connections stay open where few are needed. */
static struct http_handle *find_free(struct http_handles *handles)
{
    for (unsigned i = 0; i < handles->count; i++)
        if (!handles->list[i].busy)
            return &handles->list[i];
    return NULL;
}

static struct http_handle *add(struct http_handles *handles)
{
    struct http_handle *handle = &handles->list[handles->count];
    handle->curl = curl_easy_duphandle(handles->pattern);
    if (!handle->curl)
        return NULL;
    handles->count++;
    return handle;
}

struct http_handle *http_handles_take(struct http_handles *handles)
{
    struct http_handle *handle;
    pthread_mutex_lock(&handles->lock);
    while (!(handle = find_free(handles)) && handles->count == handles->limit)
        pthread_cond_wait(&handles->put, &handles->lock);
    if (!handle)
        handle = add(handles);
    if (handle)
        handle->busy = true;
    pthread_mutex_unlock(&handles->lock);
    return handle;
}

void http_handles_put(struct http_handles *handles, struct http_handle *handle)
{
    pthread_mutex_lock(&handles->lock);
    handle->busy = false;
    pthread_cond_signal(&handles->put);
    pthread_mutex_unlock(&handles->lock);
}
