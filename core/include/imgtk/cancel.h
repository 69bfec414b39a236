/*
 * A flag by which any thread, or a signal handler, asks jobs to stop. Jobs and
 * storages only look at it; it must outlive them.
 */
#ifndef IMGTK_CANCEL_H
#define IMGTK_CANCEL_H

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed: nobody has asked. After that it is for the functions alone, which access it atomically. */
struct imgtk_cancel {
    int reason;
};

/* Asks to stop; `reason` is the caller's own, a signal's number for instance, and not 0. Safe in a signal handler. */
IMGTK_API void imgtk_cancel_request(struct imgtk_cancel *cancel, int reason);
/* The reason that was given last, 0: nobody has asked. NULL is allowed: nobody can. Safe in a signal handler. */
IMGTK_API int imgtk_cancel_reason(const struct imgtk_cancel *cancel);

#ifdef __cplusplus
}
#endif
#endif
