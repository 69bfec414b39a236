/*
 * Errors: a status and its message are inseparable and set where the fault is
 * found, with the value and the limit that it broke.
 *
 * Every imgtk function that can fail returns 0 or one of the negative codes
 * below, and describes the failure in the struct imgtk_error it was given. The
 * message names no program; the CLI adds the program's and the file's name.
 */
#ifndef IMGTK_ERROR_H
#define IMGTK_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define IMGTK_API __attribute__((visibility("default")))
#define IMGTK_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define IMGTK_API
#define IMGTK_PRINTF(fmt, args)
#endif

enum imgtk_status {
    IMGTK_OK = 0,
    IMGTK_EINVAL = -1,     /* the caller asked for something that cannot be */
    IMGTK_EIO = -2,        /* the operating system or a server failed; os_errno may say more */
    IMGTK_ENOMEM = -3,
    IMGTK_ENOTFOUND = -4,  /* no such file, format, snapshot, option */
    IMGTK_ECORRUPT = -5,   /* the image contradicts its specification */
    IMGTK_EUNSUPPORTED = -6, /* valid, but not something this build or driver does */
    IMGTK_EREFUSED = -7,   /* a policy (references, trust, ownership) says no */
    IMGTK_ELIMIT = -8,     /* a named limit or budget is exceeded */
    IMGTK_ENOSPACE = -9,   /* the target is full or over quota */
    IMGTK_ECANCELLED = -10, /* a progress callback or a signal asked to stop */
    IMGTK_ECHANGED = -11   /* the source is not the one that the job began with */
};

#define IMGTK_MESSAGE_SIZE 1024

struct imgtk_error {
    int status;              /* enum imgtk_status */
    int os_errno;            /* errno behind it, 0 when there is none */
    char message[IMGTK_MESSAGE_SIZE]; /* one line, no newline, bytes below 0x20 replaced by '?' */
};

#define IMGTK_ERROR_INIT { 0, 0, { 0 } }

/* Sets *err (which may be NULL) and returns status. An earlier message is overwritten. */
IMGTK_API int imgtk_fail(struct imgtk_error *err, int status, const char *format, ...) IMGTK_PRINTF(3, 4);

/*
 * As imgtk_fail() for a failed system call: appends ": " and the text of
 * os_errno, and picks the status from it (ENOENT: IMGTK_ENOTFOUND; ENOSPC and
 * EDQUOT: IMGTK_ENOSPACE; ENOMEM: IMGTK_ENOMEM; everything else: IMGTK_EIO).
 */
IMGTK_API int imgtk_fail_errno(struct imgtk_error *err, int os_errno, const char *format, ...) IMGTK_PRINTF(3, 4);

/* Puts "text: " before the message already in *err and returns its status. */
IMGTK_API int imgtk_fail_prefix(struct imgtk_error *err, const char *format, ...) IMGTK_PRINTF(2, 3);

/*
 * Takes "user:password@" out of every URL in the text; the user's name alone can be a key too (https://TOKEN@host/).
 * Messages have been through here, and so should be what a program prints of names that its user gave.
 */
IMGTK_API void imgtk_hide_credentials(char *text);

#ifdef __cplusplus
}
#endif
#endif
