#include "uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static const char digits[] = "0123456789abcdef";

/* Text has a hyphen before these bytes. */
static bool hyphen_before(unsigned index)
{
    return index == 4 || index == 6 || index == 8 || index == 10;
}

void uuid_to_text(const uint8_t uuid[UUID_SIZE], char out[UUID_TEXT_SIZE])
{
    for (unsigned i = 0; i < UUID_SIZE; i++) {
        if (hyphen_before(i))
            *out++ = '-';
        *out++ = digits[uuid[i] >> 4];
        *out++ = digits[uuid[i] & 15];
    }
    *out = '\0';
}

static int nibble(char c)
{
    char lower = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
    const char *at = lower ? strchr(digits, lower) : NULL;
    return at ? (int)(at - digits) : -1;
}

int uuid_from_text(const char *text, uint8_t out[UUID_SIZE], struct imgtk_error *err)
{
    const char *at = text;
    bool good = strlen(text) == UUID_TEXT_SIZE - 1;
    for (unsigned i = 0; good && i < UUID_SIZE; i++) {
        if (hyphen_before(i))
            good = *at++ == '-';
        int high = nibble(at[0]), low = nibble(at[1]);
        good = good && high >= 0 && low >= 0;
        out[i] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
        at += 2;
    }
    if (!good)
        return imgtk_fail(err, IMGTK_EINVAL, "'%s' is not a UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)", text);
    return 0;
}

int uuid_random(uint8_t out[UUID_SIZE], struct imgtk_error *err)
{
    ssize_t got;
    do
        got = getrandom(out, UUID_SIZE, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)UUID_SIZE)
        return imgtk_fail_errno(err, got < 0 ? errno : EIO, "cannot get random bytes for a UUID");
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x40);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
    return 0;
}

bool uuid_is_null(const uint8_t uuid[UUID_SIZE])
{
    static const uint8_t null[UUID_SIZE];
    return memcmp(uuid, null, UUID_SIZE) == 0;
}

void uuid_swap_fields(const uint8_t in[UUID_SIZE], uint8_t out[UUID_SIZE])
{
    static const uint8_t from[8] = { 3, 2, 1, 0, 5, 4, 7, 6 };
    uint8_t swapped[UUID_SIZE];
    for (unsigned i = 0; i < 8; i++)
        swapped[i] = in[from[i]];
    memcpy(swapped + 8, in + 8, 8);
    memcpy(out, swapped, UUID_SIZE);
}
