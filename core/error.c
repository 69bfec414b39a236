#include "imgtk/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int status_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOENT:
        return IMGTK_ENOTFOUND;
    case ENOSPC:
    case EDQUOT:
        return IMGTK_ENOSPACE;
    case ENOMEM:
        return IMGTK_ENOMEM;
    default:
        return IMGTK_EIO;
    }
}

/* Before it is cut to size: half a password would have nothing left that tells it from a host's name. */
#define WHOLE_SIZE (4 * IMGTK_MESSAGE_SIZE)

/* Formatted aside first: an argument may point into the very message that is replaced. */
static void set_message(struct imgtk_error *err, char *text)
{
    size_t i = 0;
    imgtk_hide_credentials(text);
    for (; i < sizeof(err->message) - 1 && text[i] != '\0'; i++)
        err->message[i] = (unsigned char)text[i] < 0x20 ? '?' : text[i];
    err->message[i] = '\0';
}

static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

int imgtk_fail(struct imgtk_error *err, int status, const char *format, ...)
{
    if (!err)
        return status;
    char text[WHOLE_SIZE] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    set_message(err, text);
    err->status = status;
    err->os_errno = 0;
    return status;
}

int imgtk_fail_errno(struct imgtk_error *err, int os_errno, const char *format, ...)
{
    int status = status_of_errno(os_errno);
    if (!err)
        return status;
    char text[WHOLE_SIZE] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    append(text, sizeof(text), ": ");
    append(text, sizeof(text), strerror(os_errno));
    set_message(err, text);
    err->status = status;
    err->os_errno = os_errno;
    return status;
}

int imgtk_fail_prefix(struct imgtk_error *err, const char *format, ...)
{
    /* Without an error object nobody knows the status; any failure will do. */
    if (!err)
        return IMGTK_EIO;
    char text[WHOLE_SIZE] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    append(text, sizeof(text), ": ");
    append(text, sizeof(text), err->message);
    set_message(err, text);
    return err->status;
}
