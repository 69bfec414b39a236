#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

static char *put_utf8(char *out, uint32_t point)
{
    if (point < 0x80) {
        *out++ = (char)point;
        return out;
    }
    if (point < 0x800) {
        *out++ = (char)(0xc0 | (point >> 6));
    } else {
        if (point < 0x10000) {
            *out++ = (char)(0xe0 | (point >> 12));
        } else {
            *out++ = (char)(0xf0 | (point >> 18));
            *out++ = (char)(0x80 | ((point >> 12) & 0x3f));
        }
        *out++ = (char)(0x80 | ((point >> 6) & 0x3f));
    }
    *out++ = (char)(0x80 | (point & 0x3f));
    return out;
}

char *vhdx_utf16_to_utf8(const uint8_t *text, size_t bytes)
{
    size_t units = bytes / 2;
    char *result = malloc(units * 3 + 1); /* a pair of units takes 4 bytes, a lone one at most 3 */
    if (!result)
        return NULL;
    char *out = result;
    for (size_t i = 0; i < units; i++) {
        uint32_t point = imgtk_le16(text + 2 * i);
        if (point == 0)
            break;
        uint32_t next = i + 1 < units ? imgtk_le16(text + 2 * i + 2) : 0;
        if (point >= 0xd800 && point < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
            point = 0x10000 + ((point - 0xd800) << 10) + (next - 0xdc00);
            i++;
        } else if (point >= 0xd800 && point < 0xe000) {
            point = 0xfffd;
        }
        out = put_utf8(out, point);
    }
    *out = '\0';
    return result;
}
