/* What the check of a format without refcounts tells of space that nothing names. Compiled into each such module. */
#ifndef IMGTK_FORMATS_LEAKS_H
#define IMGTK_FORMATS_LEAKS_H

#include "imgtk/driver.h"

/* what: "blocks", "grains". Nothing is leaked of a device, which is larger than the image on it. */
void leaks_report(struct imgtk_check *check, struct imgtk_storage *file, const char *what, uint64_t count);

#endif
