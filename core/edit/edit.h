/* The steps that the jobs of imgtk/edit.h share. Internal to core. */
#ifndef IMGTK_CORE_EDIT_EDIT_H
#define IMGTK_CORE_EDIT_EDIT_H

#include "imgtk/edit.h"

/* Begins an edit of the top layer; same_disk and *unit: see struct imgtk_edit. */
int edit_begin(struct imgtk_image *image, bool same_disk, uint32_t *unit, struct imgtk_error *err);

/* What internal snapshots of the upper layers take from below is about to change. */
struct edit_below {
    struct imgtk_image *image;  /* with its chain */
    size_t depth;               /* of the first layer that changes */
    struct imgtk_image *after;  /* reads as it will; NULL: as zeroes */
    uint64_t end;               /* nothing changes behind */
    const char *what;           /* the change, as a message names it */
    const struct imgtk_cancel *cancel; /* may be NULL */
};
/* IMGTK_EREFUSED: an internal snapshot would not read as before. */
int edit_keep_snapshots(const struct edit_below *below, struct imgtk_error *err);

/* Past the end of the image, and where it is NULL, there are zeroes. */
int edit_read_padded(struct imgtk_image *image, uint8_t *buf, size_t length, uint64_t offset, struct imgtk_error *err);

/* Makes the disk larger, and what that adds read as zeroes; `how` NULL: no more of it is allocated than that takes. */
int edit_grow(struct imgtk_image *image, uint64_t size, uint32_t unit, const enum imgtk_allocation *how,
              struct imgtk_error *err);
/* Commits; the layer's size is then the new one. */
int edit_commit(struct imgtk_image *image, struct imgtk_error *err);
/* Names the file and, where its format lacks something, the format before the message. */
int edit_fail_prefix(const struct imgtk_image *image, struct imgtk_error *err);

/* Whole units of the top layer that are all zero, or else their bytes. */
int edit_write(struct imgtk_image *image, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int edit_zero(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_error *err);

#endif
