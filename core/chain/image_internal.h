/* What an open image is made of. Internal to core. */
#ifndef IMGTK_CORE_CHAIN_IMAGE_INTERNAL_H
#define IMGTK_CORE_CHAIN_IMAGE_INTERNAL_H

#include "context/budget.h"
#include "imgtk/image.h"

struct layer {
    struct imgtk_layer public;
    struct imgtk_references *references;
    struct metadata_meter metadata; /* of opening it */
    struct imgtk_backing backing;
    bool borrows_file; /* closing leaves file and references alone */
    bool borrowed;     /* closing leaves all of it alone: it belongs to another image */
    bool is_snapshot; /* not the state that a chain through its file would see */
};

struct imgtk_image {
    struct imgtk_context *context;
    size_t count;
    struct layer layers[IMGTK_MAX_CHAIN]; /* never moves: handles point into their layer's references */
};

/* The driver of the layer's file: the one that is named, or the one that recognises it (NULL). */
int layer_find_driver(struct imgtk_context *context, struct layer *layer, const char *format, struct imgtk_error *err);
/* Fills the handle. top: the request's options and snapshot are this layer's. */
int layer_open_driver(struct layer *layer, const struct imgtk_image_request *request, bool top,
                      struct imgtk_error *err);

/*
 * Opens the layer at `depth` (>= 1) once more, for writing, with the chain below it; as that format, and under the
 * reference policy, like any file that an image names.
 */
int image_open_below(struct imgtk_image *image, size_t depth, struct imgtk_image **out, struct imgtk_error *err);

/* An image that was just written and has no name yet. All parts are borrowed, and must outlive the image. */
struct image_written {
    struct imgtk_storage *file; /* can be read */
    struct imgtk_references *references;
    const struct imgtk_driver *driver;
    struct imgtk_image *backing; /* its backing chain, opened; NULL: none */
};
int image_open_written(struct imgtk_context *context, const struct image_written *written, struct imgtk_image **out,
                       struct imgtk_error *err);

/* An internal snapshot of the layer at `depth`, over the layers below that one; borrowed from the image in the same way. */
int image_open_snapshot(struct imgtk_image *image, size_t depth, const char *snapshot, struct imgtk_image **out,
                        struct imgtk_error *err);

/* Whether requests to any of its files have a long way. */
bool image_is_remote(const struct imgtk_image *image);
/* How many threads should read the image. */
unsigned image_workers(const struct imgtk_image *image);

/* Cuts off the extent's first `by` bytes, which are not all of it. */
void extent_advance(struct imgtk_extent *extent, uint64_t by);
/* Whether `next`, which begins where `first` ends, is more of the same: one row of a map. */
bool walk_continues(const struct imgtk_chain_extent *first, const struct imgtk_chain_extent *next);

#endif
