/* The parent of a differencing disk: its names, in the order in which they are tried, and its UUID. */
#include <stdlib.h>
#include <string.h>

#include "unicode.h"
#include "vpc.h"

/* ---- Text ----------------------------------------------------------------- */

char *vpc_utf16_to_utf8(const uint8_t *text, size_t size, bool big_endian)
{
    char *out = malloc(size / 2 * UNICODE_UTF8_PER_UNIT + 1), *to = out;
    if (!out)
        return NULL;
    size -= size % 2;
    for (size_t at = 0; at < size;) {
        uint32_t code = unicode_next_utf16(text, size, &at, big_endian);
        if (code == 0)
            break;
        if (code == UNICODE_MALFORMED) {
            free(out);
            return NULL;
        }
        to = unicode_put_utf8(to, code);
    }
    *to = '\0';
    return out;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "file://localhost/dir/a%20b" and "file:///dir/a": the path behind the host, in place. */
static bool url_to_path(char *url)
{
    if (strncmp(url, "file://", 7) != 0)
        return false;
    const char *from = url + 7;
    if (strncmp(from, "localhost/", 10) == 0)
        from += 9;
    char *to = url;
    while (*from) {
        int high = *from == '%' ? hex_digit(from[1]) : -1;
        int low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low >= 0 && high + low > 0) {
            *to++ = (char)(high * 16 + low);
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return true;
}

/* ---- Names ---------------------------------------------------------------- */

/* As a path here: slashes, and nothing that only says "the same folder". */
static void localise(char *name)
{
    for (char *at = name; *at; at++)
        if (*at == '\\')
            *at = '/';
    const char *from = name;
    while (from[0] == '.' && from[1] == '/') {
        from += 2;
        while (*from == '/')
            from++;
    }
    memmove(name, from, strlen(from) + 1);
}

/* Takes over `name`, which may be NULL. */
static void add_parent(struct vpc *vpc, char *name)
{
    size_t count = 0;
    if (name)
        localise(name);
    bool known = !name || !*name;
    for (; !known && vpc->parents[count]; count++)
        known = strcmp(vpc->parents[count], name) == 0;
    if (known || count == IMGTK_BACKING_NAMES)
        free(name);
    else
        vpc->parents[count] = name;
}

static char *decode_locator(const uint8_t *bytes, const struct vpc_locator *locator)
{
    if (locator->platform != VPC_PLATFORM_MACX)
        return vpc_utf16_to_utf8(bytes, locator->length, false);
    char *url = strndup((const char *)bytes, locator->length);
    if (url && !url_to_path(url)) {
        free(url);
        return NULL;
    }
    return url;
}

static int load_locator(struct vpc *vpc, const struct vpc_locator *locator, struct imgtk_error *err)
{
    if (locator->length > VPC_MAX_LOCATOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "a parent locator has %u bytes; at most %u are supported", locator->length,
                          VPC_MAX_LOCATOR);
    if (!imgtk_range_fits(locator->offset, locator->length, vpc->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "a parent locator at %llu reaches beyond the file's %llu bytes",
                          (unsigned long long)locator->offset, (unsigned long long)vpc->file_size);
    uint8_t bytes[VPC_MAX_LOCATOR];
    int status = imgtk_storage_pread(vpc->file, bytes, locator->length, locator->offset, err);
    if (!status)
        add_parent(vpc, decode_locator(bytes, locator));
    return status;
}

int vpc_load_parents(struct vpc *vpc, struct imgtk_error *err)
{
    static const uint32_t order[] = { VPC_PLATFORM_W2RU, VPC_PLATFORM_W2KU, VPC_PLATFORM_MACX };
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        for (size_t j = 0; j < VPC_LOCATORS; j++) {
            const struct vpc_locator *locator = &vpc->header.locators[j];
            if (locator->platform != order[i] || locator->length == 0)
                continue;
            int status = load_locator(vpc, locator, err);
            if (status)
                return status;
        }
    add_parent(vpc, vpc_utf16_to_utf8(vpc->header.parent_name, VPC_PARENT_NAME_SIZE, true));
    uuid_to_text(vpc->header.parent_uuid, vpc->parent_uuid);
    return 0;
}

int vpc_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    const struct vpc *vpc = handle;
    *out = (struct imgtk_backing){ .names = { NULL } };
    if (vpc->footer.type != VPC_DIFFERENCING)
        return 0;
    if (!vpc->parents[0] && !vpc->no_references)
        return imgtk_fail(err, IMGTK_ECORRUPT, "a differencing disk that does not name its parent (UUID %s)",
                          vpc->parent_uuid);
    for (size_t i = 0; i < IMGTK_BACKING_NAMES; i++)
        out->names[i] = vpc->parents[i];
    out->format = "vpc";
    out->identity = vpc->parent_uuid;
    return 0;
}
