/*
 * Jobs that change an image in place. What driver.h promises of an edit holds for each of them: a job that fails, or a
 * process that is killed, leaves the image as it was, or as it was to become.
 *
 * The images are opened with imgtk_image_request.writable. One whose format was guessed to be raw is refused.
 */
#ifndef IMGTK_EDIT_H
#define IMGTK_EDIT_H

#include "jobs.h"

#ifdef __cplusplus
extern "C" {
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* some structures have the name of the function that takes them */
#endif
#endif

/*
 * The virtual size in bytes. IMGTK_EREFUSED: it is smaller than what the image has, and `shrink` does not allow that.
 * What a larger disk adds reads as zeroes, whatever the backing file has there: open the image with its chain.
 */
IMGTK_API int imgtk_resize(struct imgtk_image *image, uint64_t size, bool shrink, struct imgtk_error *err);

/* imgtk_resize() to a larger size; what that adds is allocated as well. IMGTK_EINVAL: it is not larger. */
IMGTK_API int imgtk_grow(struct imgtk_image *image, uint64_t size, enum imgtk_allocation how, struct imgtk_error *err);

struct imgtk_rebase {
    struct imgtk_image *image;         /* with its chain, unless unsafe */
    const char *backing_name;          /* as the image will record it; NULL: it has no backing file any more */
    const char *backing_format;        /* the same; NULL: not recorded */
    struct imgtk_image *backing;       /* that file, opened; NULL: there is none, or unsafe */
    bool unsafe;                       /* the name alone is changed: what the disk reads as may change */
    imgtk_progress_fn progress;        /* may be NULL */
    void *progress_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
};
/* Gives the image another backing file. The disk reads as before, since what differs is written into the image. */
IMGTK_API int imgtk_rebase(const struct imgtk_rebase *job, struct imgtk_error *err);

struct imgtk_commit {
    struct imgtk_image *image;         /* with its chain; writable unless `keep` */
    size_t depth;                      /* of the layer below, >= 1, that is written into */
    bool keep;                         /* leave the image as it is; else it is empty afterwards. Needed for depth > 1 */
    imgtk_progress_fn progress;        /* may be NULL */
    void *progress_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
};
/*
 * Writes what the layers above it hold into the layer at `depth`, which grows to the size of the disk if it is smaller.
 * That file is opened for writing under the reference policy. It is complete and on disk before the image is emptied.
 */
IMGTK_API int imgtk_commit(const struct imgtk_commit *job, struct imgtk_error *err);

/* Creates, applies or deletes an internal snapshot. */
IMGTK_API int imgtk_snapshot_change(struct imgtk_image *image, const struct imgtk_snapshot_change *change,
                                    struct imgtk_error *err);

#ifdef __cplusplus
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
}
#endif
#endif
