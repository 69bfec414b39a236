/* Zero detection. Internal to core. */
#ifndef IMGTK_CORE_ZERO_H
#define IMGTK_CORE_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/* Whether all length bytes are zero; stops at the first that is not. Any alignment; length 0 is true. */
bool bytes_are_zero(const void *buf, size_t length);
/* The same without vector instructions of one processor; for tests. */
bool bytes_are_zero_portable(const void *buf, size_t length);

#endif
