/* What an open image is made of. Internal to core. */
#ifndef IMGTK_CORE_IMAGE_INTERNAL_H
#define IMGTK_CORE_IMAGE_INTERNAL_H

#include "imgtk/image.h"

struct layer {
    struct imgtk_layer public;
    struct imgtk_references *references;
    struct imgtk_backing backing;
};

struct imgtk_image {
    struct imgtk_context *context;
    size_t count;
    struct layer layers[IMGTK_MAX_CHAIN]; /* never moves: handles point into their layer's references */
};

#endif
