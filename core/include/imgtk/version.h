/* Which imgtk this is. */
#ifndef IMGTK_VERSION_H
#define IMGTK_VERSION_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

IMGTK_API const char *imgtk_version(void);            /* "1.2.3" */
/*
 * The libraries that it is linked with, as found at run time, then those that its modules were built with (a module
 * that is not installed needs none). false: there are no more than `index`.
 */
IMGTK_API bool imgtk_library(size_t index, const char **name, const char **version);

#ifdef __cplusplus
}
#endif
#endif
