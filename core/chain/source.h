/* The source of a conversion: images one after the other, seen as one disk. Internal to core. */
#ifndef IMGTK_CORE_CHAIN_SOURCE_H
#define IMGTK_CORE_CHAIN_SOURCE_H

#include "imgtk/image.h"

struct source {
    struct imgtk_image *const *images;
    size_t count;
    uint64_t size; /* of all together */
};

/* IMGTK_ELIMIT when the sizes add up beyond what a disk can have. */
int source_init(struct source *source, struct imgtk_image *const *images, size_t count, struct imgtk_error *err);

/* A pipe that image.c found to give the disk in order: it is read once, by one thread at a time. */
bool source_in_order(const struct source *source);

/* One worker's walks over all images; not thread-safe. */
struct source_walk;
int source_walk_new(const struct source *source, bool ask_storage, struct source_walk **out, struct imgtk_error *err);
void source_walk_free(struct source_walk *walk);
/*
 * As imgtk_walk_merged(), offsets of the whole; *image tells which of them answers. Never reaches across images. An
 * answer may be the rest of an earlier one, and ends where that did.
 */
int source_walk_next(struct source_walk *walk, uint64_t offset, uint64_t length, struct imgtk_chain_extent *out,
                     size_t *image, struct imgtk_error *err);
int source_walk_read(struct source_walk *walk, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);

#endif
