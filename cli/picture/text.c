#include "text.h"

#include <string.h>

#include "unicode.h"

#define ELLIPSIS 0x2026u

/* Control characters, those that change the direction of text, and those that XML does not have. */
static uint32_t harmless(uint32_t point)
{
    if (point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0xd800 && point < 0xe000) || point > 0x10ffff)
        return UNICODE_REPLACEMENT;
    if ((point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
        (point >= 0x2060 && point <= 0x206f) || point == 0xfeff || (point & 0xfffe) == 0xfffe)
        return UNICODE_REPLACEMENT;
    return point;
}

uint32_t text_next(const char **text)
{
    static const uint32_t smallest[] = { 0, 0x80, 0x800, 0x10000 };
    const uint8_t *at = (const uint8_t *)*text;
    if (*at == 0)
        return 0;
    unsigned more = *at < 0x80 ? 0 : *at < 0xc0 ? 4 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : *at < 0xf8 ? 3 : 4;
    *text += 1;
    if (more > 3)
        return UNICODE_REPLACEMENT;
    uint32_t point = more ? *at & (0x3fu >> more) : *at;
    for (unsigned i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return UNICODE_REPLACEMENT;
        point = point << 6 | (at[i] & 0x3f);
    }
    *text += more;
    return point < smallest[more] ? UNICODE_REPLACEMENT : harmless(point);
}

bool text_pass(const char **text)
{
    const char *from = *text;
    if (text_next(text) != UNICODE_REPLACEMENT)
        return true;
    if (*text - from == 1)
        return (uint8_t)*from >= 0xa0;
    return strncmp(from, "\xef\xbf\xbd", 3) == 0; /* it was U+FFFD itself */
}

static void put_plain(FILE *to, uint32_t point)
{
    char bytes[4] = { 0 };
    fwrite(bytes, 1, (size_t)(unicode_put_utf8(bytes, point) - bytes), to);
}

static void put_xml(FILE *to, uint32_t point)
{
    switch (point) {
    case '&':
    case '<':
    case '>':
    case '"':
    case '\'':
        fprintf(to, "&#%u;", (unsigned)point);
        break;
    default:
        put_plain(to, point);
    }
}

static size_t put_limited(FILE *to, const char *text, size_t limit, void (*put)(FILE *, uint32_t))
{
    size_t count = 0;
    uint32_t point = text_next(&text);
    for (; point != 0 && count < limit; count++) {
        uint32_t next = text_next(&text);
        put(to, count + 1 == limit && next != 0 ? ELLIPSIS : point);
        point = next;
    }
    return count;
}

size_t text_put(FILE *to, const char *text, size_t limit)
{
    return put_limited(to, text, limit, put_plain);
}

size_t text_put_xml(FILE *to, const char *text, size_t limit)
{
    return put_limited(to, text, limit, put_xml);
}

void text_put_json(FILE *to, const char *text)
{
    putc('"', to);
    for (uint32_t point = text_next(&text); point != 0; point = text_next(&text)) {
        if (point == '"' || point == '\\' || point == '<' || point == '>' || point == '&')
            fprintf(to, "\\u%04x", (unsigned)point);
        else
            put_plain(to, point);
    }
    putc('"', to);
}
