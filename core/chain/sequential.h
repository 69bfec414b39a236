/* Sources that can be read once only. Internal to core. */
#ifndef IMGTK_CORE_CHAIN_SEQUENTIAL_H
#define IMGTK_CORE_CHAIN_SEQUENTIAL_H

#include "imgtk/image.h"

/*
 * Where *file is sequential: leaves it as it is if the request wants the disk in order and the image can give it so,
 * else puts a temporary file with its bytes, under its name, in its place. Says which to -v.
 */
int sequential_settle(struct imgtk_context *context, struct imgtk_storage **file,
                      const struct imgtk_image_request *request, struct imgtk_error *err);

#endif
