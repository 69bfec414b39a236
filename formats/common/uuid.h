/* UUIDs as the VHD and VDI drivers need them. Compiled into each module that uses it. */
#ifndef IMGTK_FORMATS_UUID_H
#define IMGTK_FORMATS_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "imgtk/error.h"

#define UUID_SIZE 16u
#define UUID_TEXT_SIZE 37u /* with the terminating NUL */

/* Bytes here are in the order of the text (RFC 4122, big-endian). */
void uuid_to_text(const uint8_t uuid[UUID_SIZE], char out[UUID_TEXT_SIZE]);
/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" in hexadecimal of any case. */
int uuid_from_text(const char *text, uint8_t out[UUID_SIZE], struct imgtk_error *err);
/* A random UUID of version 4. */
int uuid_random(uint8_t out[UUID_SIZE], struct imgtk_error *err);
/* SOURCE_DATE_EPOCH, the time that reproducible builds pretend it is; *set false: it is not given. */
int uuid_source_date(bool *set, uint64_t *seconds, struct imgtk_error *err);
/*
 * For a new image: `text` when it is not NULL; else, with SOURCE_DATE_EPOCH, one that follows from that, the disk's
 * size and `salt` (which of the image's UUIDs it is); else a random one.
 */
int uuid_choose(const char *text, uint64_t size, uint32_t salt, uint8_t out[UUID_SIZE], struct imgtk_error *err);
bool uuid_is_null(const uint8_t uuid[UUID_SIZE]);
/* Between the order of the text and the order with little-endian first three fields; in == out is allowed. */
void uuid_swap_fields(const uint8_t in[UUID_SIZE], uint8_t out[UUID_SIZE]);

#endif
