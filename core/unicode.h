/* Text from images: UTF-16 as formats record it, to UTF-8. Private to this tree; inline, so that modules can use it. */
#ifndef IMGTK_UNICODE_H
#define IMGTK_UNICODE_H

#include "imgtk/bytes.h"

#define UNICODE_REPLACEMENT 0xfffdu
#define UNICODE_MALFORMED UINT32_MAX
#define UNICODE_UTF8_PER_UNIT 3 /* bytes that one unit of UTF-16 takes at most; a pair of units takes 4 */

/*
 * The code point at *at of `size` bytes, an even number; *at < size, and moves behind what was read.
 * UNICODE_MALFORMED: half of a surrogate pair.
 */
static inline uint32_t unicode_next_utf16(const uint8_t *text, size_t size, size_t *at, bool big_endian)
{
    uint32_t high = big_endian ? imgtk_be16(text + *at) : imgtk_le16(text + *at);
    *at += 2;
    if (high < 0xd800 || high > 0xdfff)
        return high;
    if (high > 0xdbff || size - *at < 2)
        return UNICODE_MALFORMED;
    uint32_t low = big_endian ? imgtk_be16(text + *at) : imgtk_le16(text + *at);
    if (low < 0xdc00 || low > 0xdfff)
        return UNICODE_MALFORMED;
    *at += 2;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

/* Writes at most 4 bytes, not terminated; returns the end. */
static inline char *unicode_put_utf8(char *to, uint32_t code)
{
    static const uint8_t lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    unsigned more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)(lead[more] | code >> (6 * more));
    while (more-- > 0)
        *to++ = (char)(0x80 | ((code >> (6 * more)) & 0x3f));
    return to;
}

#endif
