/* What the check of a format without refcounts tells of space that nothing names. Compiled into each such module. */
#ifndef IMGTK_FORMATS_LEAKS_H
#define IMGTK_FORMATS_LEAKS_H

#include <stdbool.h>

#include "imgtk/driver.h"

/* what: "blocks", "grains". Nothing is leaked of a device, which is larger than the image on it. */
void leaks_report(struct imgtk_check *check, struct imgtk_storage *file, const char *what, uint64_t count);

/* What lies behind all that an image names. */
struct leaks_tail {
    uint64_t end;       /* of what is named, bytes of the file */
    uint64_t count;     /* of the leaks that were reported, those behind it */
    const char *unsafe; /* why the file must not end there; NULL: it may */
};
/* Whether they are to be cut off; where that is asked for and not safe, tells why. */
bool leaks_can_cut(struct imgtk_check *check, const struct imgtk_storage *file, const struct leaks_tail *tail);
/* Lets the file end at tail->end, by one call, so that an interruption leaves it as it was or as it will be. */
int leaks_cut(struct imgtk_check *check, struct imgtk_storage *file, const struct leaks_tail *tail,
              struct imgtk_error *err);

#endif
