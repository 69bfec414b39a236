#include "uuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "imgtk/bytes.h"

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

static void mark_version_4(uint8_t uuid[UUID_SIZE])
{
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

int uuid_random(uint8_t out[UUID_SIZE], struct imgtk_error *err)
{
    ssize_t got;
    do
        got = getrandom(out, UUID_SIZE, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)UUID_SIZE)
        return imgtk_fail_errno(err, got < 0 ? errno : EIO, "cannot get random bytes for a UUID");
    mark_version_4(out);
    return 0;
}

int uuid_source_date(bool *set, uint64_t *seconds, struct imgtk_error *err)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    char *end;
    *set = text && *text;
    if (!*set)
        return 0;
    errno = 0;
    *seconds = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9')
        return imgtk_fail(err, IMGTK_EINVAL, "SOURCE_DATE_EPOCH is '%s', which is not a number of seconds", text);
    return 0;
}

/* FNV-1a over the numbers' bytes: not secret, only different for different images. */
static uint64_t hash(uint64_t seed, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++)
        seed = (seed ^ (uint8_t)(number >> (8 * i))) * UINT64_C(0x100000001b3);
    return seed;
}

int uuid_choose(const char *text, uint64_t size, uint32_t salt, uint8_t out[UUID_SIZE], struct imgtk_error *err)
{
    bool set;
    uint64_t seconds;
    if (text)
        return uuid_from_text(text, out, err);
    int status = uuid_source_date(&set, &seconds, err);
    if (status || !set)
        return status ? status : uuid_random(out, err);
    uint64_t high = hash(hash(hash(UINT64_C(0xcbf29ce484222325), seconds), size), salt);
    imgtk_put_be64(out, high);
    imgtk_put_be64(out + 8, hash(high, seconds));
    mark_version_4(out);
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
