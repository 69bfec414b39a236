/* Sources that can be read once only. Internal to core. */
#ifndef IMGTK_CORE_SEQUENTIAL_H
#define IMGTK_CORE_SEQUENTIAL_H

#include "imgtk/image.h"

/* Where *file is sequential: puts a temporary file with its bytes, under its name, in its place. Says so to -v. */
int sequential_spool(struct imgtk_context *context, struct imgtk_storage **file, struct imgtk_error *err);

#endif
