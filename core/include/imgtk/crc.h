/*
 * Cyclic redundancy checks of 32 bits, of structures of images: a few bytes to
 * some MiB. Any thread may call them.
 */
#ifndef IMGTK_CRC_H
#define IMGTK_CRC_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Continues a check over the next `length` bytes; begin with 0. crc32 is that
 * of ISO 3309 (GPT, gzip), crc32c that of RFC 3720, chapter 12.1 (VHDX).
 */
IMGTK_API uint32_t imgtk_crc32(uint32_t crc, const void *data, size_t length);
IMGTK_API uint32_t imgtk_crc32c(uint32_t crc, const void *data, size_t length);

#ifdef __cplusplus
}
#endif
#endif
