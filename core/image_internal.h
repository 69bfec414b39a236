/* What an open image is made of. Internal to core. */
#ifndef IMGTK_CORE_IMAGE_INTERNAL_H
#define IMGTK_CORE_IMAGE_INTERNAL_H

#include "imgtk/image.h"

struct layer {
    struct imgtk_layer public;
    struct imgtk_references *references;
    struct imgtk_backing backing;
    bool is_snapshot; /* not the state that a chain through its file would see */
};

struct imgtk_image {
    struct imgtk_context *context;
    size_t count;
    struct layer layers[IMGTK_MAX_CHAIN]; /* never moves: handles point into their layer's references */
};

/* Whether `next`, which begins where `first` ends, is more of the same: one row of a map. */
bool walk_continues(const struct imgtk_chain_extent *first, const struct imgtk_chain_extent *next);

#endif
