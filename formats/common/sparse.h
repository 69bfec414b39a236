/* Writing blocks whose zeroes need not take space. Compiled into each module that uses it. */
#ifndef IMGTK_FORMATS_SPARSE_H
#define IMGTK_FORMATS_SPARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgtk/storage.h"

#define SPARSE_PIECE 4096u /* zeroes are looked for in pieces of this size */

/* Writes all but long runs of zeroes: for storage that reads as zeroes where nothing was written. */
int sparse_pwrite(struct imgtk_storage *file, const uint8_t *bytes, size_t length, uint64_t offset,
                  struct imgtk_error *err);

#endif
