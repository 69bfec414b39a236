/* Zero detection. Internal to core. */
#ifndef IMGTK_CORE_ZERO_H
#define IMGTK_CORE_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/* As imgtk_is_zero() (bytes.h), without vector instructions of one processor; for tests. */
bool is_zero_portable(const void *buf, size_t length);

#endif
