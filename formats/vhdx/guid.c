#include <string.h>

#include "vhdx.h"

/* Which byte on disk each pair of digits of the text is: the first three fields are little-endian. */
static const uint8_t text_order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

struct vhdx_guid vhdx_guid_at(const void *bytes)
{
    struct vhdx_guid guid;
    memcpy(guid.bytes, bytes, sizeof(guid.bytes));
    return guid;
}

bool vhdx_guid_equal(const struct vhdx_guid *guid, const void *bytes)
{
    return memcmp(guid->bytes, bytes, sizeof(guid->bytes)) == 0;
}

bool vhdx_guid_is_zero(const struct vhdx_guid *guid)
{
    static const uint8_t zero[16];
    return vhdx_guid_equal(guid, zero);
}

static bool hyphen_before(size_t pair)
{
    return pair == 4 || pair == 6 || pair == 8 || pair == 10;
}

void vhdx_guid_format(const struct vhdx_guid *guid, char out[VHDX_GUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 16; i++) {
        if (hyphen_before(i))
            *out++ = '-';
        uint8_t byte = guid->bytes[text_order[i]];
        *out++ = digits[byte >> 4];
        *out++ = digits[byte & 15];
    }
    *out = '\0';
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool vhdx_guid_parse(const char *text, struct vhdx_guid *out)
{
    bool braces = *text == '{';
    text += braces;
    for (size_t i = 0; i < 16; i++) {
        if (hyphen_before(i) && *text++ != '-')
            return false;
        int high = digit_value(text[0]);
        int low = high < 0 ? -1 : digit_value(text[1]);
        if (low < 0)
            return false;
        out->bytes[text_order[i]] = (uint8_t)(high * 16 + low);
        text += 2;
    }
    return strcmp(text, braces ? "}" : "") == 0;
}
