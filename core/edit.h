/* The steps that the jobs of imgtk/edit.h share. Internal to core. */
#ifndef IMGTK_CORE_EDIT_H
#define IMGTK_CORE_EDIT_H

#include "imgtk/edit.h"

/* Begins an edit of the top layer; same_disk and *unit: see struct imgtk_edit. */
int edit_begin(struct imgtk_image *image, bool same_disk, uint32_t *unit, struct imgtk_error *err);
/* IMGTK_EREFUSED: one of the first `layers` has internal snapshots, which depend on what lies below. `what`: the job. */
int edit_refuse_snapshots(const struct imgtk_image *image, size_t layers, const char *what, struct imgtk_error *err);
/* Makes the disk larger, and what that adds read as zeroes. */
int edit_grow(struct imgtk_image *image, uint64_t size, uint32_t unit, struct imgtk_error *err);
/* Commits; the layer's size is then the new one. */
int edit_commit(struct imgtk_image *image, struct imgtk_error *err);
/* Names the file and, where its format lacks something, the format before the message. */
int edit_fail_prefix(const struct imgtk_image *image, struct imgtk_error *err);

/* Whole units of the top layer that are all zero, or else their bytes. */
int edit_write(struct imgtk_image *image, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int edit_zero(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_error *err);

#endif
