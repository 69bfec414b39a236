#include <stdlib.h>

#include "unicode.h"
#include "vhdx.h"

char *vhdx_utf16_to_utf8(const uint8_t *text, size_t bytes)
{
    char *result = malloc(bytes / 2 * UNICODE_UTF8_PER_UNIT + 1);
    if (!result)
        return NULL;
    char *out = result;
    bytes -= bytes % 2;
    for (size_t at = 0; at < bytes;) {
        uint32_t point = unicode_next_utf16(text, bytes, &at, false);
        if (point == 0)
            break;
        out = unicode_put_utf8(out, point == UNICODE_MALFORMED ? UNICODE_REPLACEMENT : point);
    }
    *out = '\0';
    return result;
}
