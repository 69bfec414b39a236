/* The headers of a reply, as far as they matter here. */
#include <string.h>
#include <strings.h>

#include "http.h"

static bool is_blank(char letter)
{
    return letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n';
}

/* The value of the header of that name, without blanks around it; NULL: it is another header. */
static const char *value_of(const char *line, size_t length, const char *name, size_t *value_length)
{
    size_t start = strlen(name) + 1;
    if (length < start || strncasecmp(line, name, start - 1) != 0 || line[start - 1] != ':')
        return NULL;
    while (start < length && is_blank(line[start]))
        start++;
    while (length > start && is_blank(line[length - 1]))
        length--;
    *value_length = length - start;
    return line + start;
}

/* Digits up to `end`, with nothing around them, into a number that a file's size can be. */
static bool take_number(const char **at, const char *end, uint64_t *out)
{
    const char *begin = *at;
    *out = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        if (*out > (INT64_MAX - 9) / 10)
            return false;
        *out = *out * 10 + (uint64_t)(**at - '0');
    }
    return *at > begin;
}

static bool take_letter(const char **at, const char *end, char letter)
{
    bool found = *at < end && **at == letter;
    *at += found;
    return found;
}

/* "bytes 0-9/100", "bytes 0-9/ *" (without the blank), and of a range that cannot be: "bytes * /100". */
static void take_range(struct http_reply *reply, const char *at, const char *end)
{
    static const char unit[] = "bytes ";
    struct http_reply found = { 0 };
    if ((size_t)(end - at) < sizeof(unit) || strncasecmp(at, unit, sizeof(unit) - 1) != 0)
        return;
    at += sizeof(unit) - 1;
    if (!take_letter(&at, end, '*'))
        found.has_range = take_number(&at, end, &found.first) && take_letter(&at, end, '-') &&
                          take_number(&at, end, &found.last) && found.first <= found.last;
    if (!take_letter(&at, end, '/'))
        return;
    found.has_total = take_number(&at, end, &found.total);
    if (at != end && !(take_letter(&at, end, '*') && at == end))
        return;
    reply->has_range = found.has_range;
    reply->has_total = found.has_total;
    reply->first = found.first;
    reply->last = found.last;
    reply->total = found.total;
}

static void take_text(char out[HTTP_MAX_TAG], const char *value, size_t length)
{
    if (length >= HTTP_MAX_TAG)
        length = 0;
    memcpy(out, value, length);
    out[length] = '\0';
}

/* "HTTP/1.1 206 Partial Content" */
static void begin(struct http_reply *reply, const char *line, size_t length)
{
    uint64_t code;
    const char *end = line + length;
    const char *at = memchr(line, ' ', length);
    size_t received = reply->received;
    memset(reply, 0, sizeof(*reply));
    reply->received = received;
    if (at && ++at && take_number(&at, end, &code) && code < 1000)
        reply->code = (unsigned)code;
}

void http_reply_add(struct http_reply *reply, const char *line, size_t length)
{
    const char *value;
    size_t size;
    reply->received += length;
    if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
        begin(reply, line, length);
    else if ((value = value_of(line, length, "Content-Range", &size)) != NULL)
        take_range(reply, value, value + size);
    else if ((value = value_of(line, length, "ETag", &size)) != NULL)
        take_text(reply->etag, value, size);
    else if ((value = value_of(line, length, "Last-Modified", &size)) != NULL)
        take_text(reply->modified, value, size);
    else if ((value = value_of(line, length, "Content-Encoding", &size)) != NULL)
        reply->is_encoded = size > 0 && !(size == 8 && strncasecmp(value, "identity", size) == 0);
    else if ((value = value_of(line, length, "Content-Length", &size)) != NULL) {
        const char *end = value + size;
        reply->has_length = take_number(&value, end, &reply->length) && value == end;
    }
}

static bool agree(const char *one, const char *two)
{
    return !*one || !*two || strcmp(one, two) == 0;
}

bool http_reply_same_content(const struct http_reply *one, const struct http_reply *two)
{
    return agree(one->etag, two->etag) && agree(one->modified, two->modified) &&
           (!one->has_total || !two->has_total || one->total == two->total);
}
