/* Whether two images take a range from the same place, so that it need not be read. Internal to core. */
#ifndef IMGTK_CORE_EDIT_SAME_PLACE_H
#define IMGTK_CORE_EDIT_SAME_PLACE_H

#include "imgtk/image.h"

/* Remembers the last answer of the operating system; zeroed to begin with, for one thread. */
struct same_place {
    const struct imgtk_storage *files[2]; /* asked last whether they are one file, and the answer */
    bool files_same;
};

/* The extents begin at the same offset, one in each image. */
bool same_place(struct same_place *places, struct imgtk_image *const images[2],
                const struct imgtk_chain_extent extents[2]);

#endif
