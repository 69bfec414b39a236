#include "imgtk/error.h"

#include <string.h>

void imgtk_hide_credentials(char *text)
{
    for (char *host = text; (host = strstr(host, "://")) != NULL;) {
        host += 3;
        /* Spaces belong to the text around the URL, and so does the quote behind it. */
        char *end = host + strcspn(host, "/?#' \t");
        char *at = memrchr(host, '@', (size_t)(end - host));
        if (at)
            memmove(host, at + 1, strlen(at + 1) + 1);
    }
}
