/* The descriptor: a text of key=value lines and one line per extent. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vmdk.h"

static const char signature[] = "# Disk DescriptorFile";

/* Some writers leave the first line out; then comments and blank lines lead to the version. */
static bool version_follows_comments(const char *at, const char *end)
{
    while (at < end && (*at == '#' || *at == '\n' || *at == '\r' || *at == ' ')) {
        if (*at == '#')
            at = memchr(at, '\n', (size_t)(end - at));
        if (!at)
            return false;
        at++;
    }
    return end - at >= 9 && memcmp(at, "version=", 8) == 0 && at[8] >= '1' && at[8] <= '4';
}

enum imgtk_probe_result vmdk_descriptor_probe(const uint8_t *bytes, size_t length)
{
    const char *text = (const char *)bytes;
    if (length >= sizeof(signature) - 1 && strncasecmp(text, signature, sizeof(signature) - 1) == 0)
        return IMGTK_PROBE_YES;
    return length > 0 && version_follows_comments(text, text + length) ? IMGTK_PROBE_MAYBE : IMGTK_PROBE_NO;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

/* Cuts the next word off *rest; "" at the end. */
static char *next_word(char **rest)
{
    char *word = *rest + strspn(*rest, " \t");
    size_t length = strcspn(word, " \t");
    *rest = word + length;
    if (**rest)
        *(*rest)++ = '\0';
    return word;
}

static bool parse_number(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end = NULL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool parse_cid(const char *text, uint32_t *out)
{
    size_t length = strspn(text, "0123456789abcdefABCDEF");
    if (length == 0 || length > 8 || text[length] != '\0')
        return false;
    *out = (uint32_t)strtoul(text, NULL, 16);
    return true;
}

static int extent_type(const char *text, enum vmdk_extent_type *out, struct imgtk_error *err)
{
    static const struct { const char *name; enum vmdk_extent_type type; } known[] = {
        { "FLAT", VMDK_TYPE_FLAT }, { "VMFS", VMDK_TYPE_FLAT }, { "ZERO", VMDK_TYPE_ZERO },
        { "SPARSE", VMDK_TYPE_SPARSE }, { "VMFSSPARSE", VMDK_TYPE_COWD }, { "SESPARSE", VMDK_TYPE_SESPARSE },
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(text, known[i].name) == 0) {
            *out = known[i].type;
            return 0;
        }
    }
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the descriptor has an extent of type '%s'; supported are FLAT, VMFS, "
                      "ZERO, SPARSE, VMFSSPARSE and SESPARSE", text);
}

/* The quoted name at *rest, which then stands behind it. */
static int extent_name(char **rest, const char **out, struct imgtk_error *err)
{
    char *at = *rest + strspn(*rest, " \t");
    char *end = *at == '"' ? strchr(at + 1, '"') : NULL;
    if (!end || end == at + 1)
        return imgtk_fail(err, IMGTK_ECORRUPT, "an extent line of the descriptor has no file name in quotes");
    *end = '\0';
    for (const char *c = at + 1; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return imgtk_fail(err, IMGTK_ECORRUPT, "an extent's file name has the control character 0x%02x",
                              (unsigned)(unsigned char)*c);
    *out = at + 1;
    *rest = end + 1;
    return 0;
}

static int sectors_to_bytes(const char *what, const char *text, uint64_t *out, struct imgtk_error *err)
{
    uint64_t sectors = 0;
    if (!parse_number(text, &sectors))
        return imgtk_fail(err, IMGTK_ECORRUPT, "an extent's %s '%.40s' is not a number", what, text);
    if (sectors > VMDK_MAX_SIZE / VMDK_SECTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "an extent's %s of %llu sectors is above the limit of %llu", what,
                          (unsigned long long)sectors, (unsigned long long)(VMDK_MAX_SIZE / VMDK_SECTOR));
    *out = sectors * VMDK_SECTOR;
    return 0;
}

/* access, sectors, type ["name" [offset]] */
static int parse_extent(const char *access, char *rest, struct vmdk_line *line, struct imgtk_error *err)
{
    if (strcasecmp(access, "NOACCESS") == 0)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the descriptor denies access to an extent (NOACCESS)");
    int status = sectors_to_bytes("length", next_word(&rest), &line->length, err);
    if (status)
        return status;
    if (line->length == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor has an extent of 0 sectors");
    line->type_text = next_word(&rest);
    status = extent_type(line->type_text, &line->type, err);
    if (status)
        return status;
    line->name = "";
    if (line->type == VMDK_TYPE_ZERO)
        return 0;
    status = extent_name(&rest, &line->name, err);
    if (status)
        return status;
    char *offset = next_word(&rest);
    if (*offset == '\0' || line->type != VMDK_TYPE_FLAT)
        return 0;
    return sectors_to_bytes("offset", offset, &line->offset, err);
}

static int add_extent(struct vmdk_descriptor *out, const char *access, char *rest, struct imgtk_error *err)
{
    if (out->line_count == VMDK_MAX_EXTENTS)
        return imgtk_fail(err, IMGTK_ELIMIT, "the descriptor has more than %u extents", VMDK_MAX_EXTENTS);
    if ((out->line_count & (out->line_count - 1)) == 0) {
        size_t room = out->line_count ? out->line_count * 2 : 1;
        struct vmdk_line *lines = realloc(out->lines, room * sizeof(*lines));
        if (!lines)
            return imgtk_fail(err, IMGTK_ENOMEM, "no memory for %zu extents", room);
        out->lines = lines;
    }
    struct vmdk_line *line = &out->lines[out->line_count];
    memset(line, 0, sizeof(*line));
    int status = parse_extent(access, rest, line, err);
    if (!status)
        out->line_count++;
    return status;
}

static char *unquote(char *value)
{
    size_t length = strlen(value);
    if (length < 2 || value[0] != '"' || value[length - 1] != '"')
        return value;
    value[length - 1] = '\0';
    return value + 1;
}

static int set_cid(const char *key, const char *value, uint32_t *out, struct imgtk_error *err)
{
    if (!parse_cid(value, out))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor's %s '%.40s' is not a number of up to 8 hexadecimal "
                          "digits", key, value);
    return 0;
}

static int set_value(struct vmdk_descriptor *out, const char *key, char *value, struct imgtk_error *err)
{
    if (strcasecmp(key, "CID") == 0) {
        out->has_cid = true;
        return set_cid("CID", value, &out->cid, err);
    }
    if (strcasecmp(key, "parentCID") == 0)
        return set_cid("parentCID", value, &out->parent_cid, err);
    if (strcasecmp(key, "createType") == 0)
        out->create_type = unquote(value);
    else if (strcasecmp(key, "parentFileNameHint") == 0)
        out->parent_name = unquote(value);
    return 0;
}

static bool is_access(const char *word)
{
    return strcasecmp(word, "RW") == 0 || strcasecmp(word, "RDONLY") == 0 || strcasecmp(word, "NOACCESS") == 0;
}

static int parse_line(struct vmdk_descriptor *out, char *line, struct imgtk_error *err)
{
    if (strlen(line) > VMDK_MAX_LINE)
        return imgtk_fail(err, IMGTK_ELIMIT, "a line of the descriptor has %zu bytes; the limit is %u", strlen(line),
                          VMDK_MAX_LINE);
    line = trim(line);
    if (*line == '\0' || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    char *blank = strpbrk(line, " \t");
    if (blank && (!equals || blank < equals)) {
        char *rest = line;
        char saved = *blank;
        *blank = '\0';
        if (is_access(line)) {
            rest = blank + 1;
            return add_extent(out, line, rest, err);
        }
        *blank = saved;
    }
    if (!equals)
        return 0; /* later versions may have lines of other kinds */
    *equals = '\0';
    return set_value(out, trim(line), trim(equals + 1), err);
}

static int parse_lines(struct vmdk_descriptor *out, struct imgtk_error *err)
{
    char *next = NULL;
    for (char *line = out->text; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        int status = parse_line(out, line, err);
        if (status)
            return status;
    }
    return 0;
}

static int check_parent(const struct vmdk_descriptor *descriptor, struct imgtk_error *err)
{
    bool named = descriptor->parent_name && *descriptor->parent_name;
    if (named && descriptor->parent_cid == VMDK_CID_NONE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor names a parent, but its parentCID says that there is "
                          "none");
    if (!named && descriptor->parent_cid != VMDK_CID_NONE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor's parentCID is %08x, but it names no parent",
                          descriptor->parent_cid);
    return 0;
}

int vmdk_descriptor_parse(const uint8_t *bytes, size_t length, struct vmdk_descriptor *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    if (length > VMDK_MAX_DESCRIPTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "the descriptor has %zu bytes; the limit is %u", length,
                          VMDK_MAX_DESCRIPTOR);
    if (vmdk_descriptor_probe(bytes, length) == IMGTK_PROBE_NO)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor does not begin with '%s'", signature);
    out->cid = out->parent_cid = VMDK_CID_NONE;
    out->create_type = "";
    out->text = strndup((const char *)bytes, length);
    int status = out->text ? parse_lines(out, err) : imgtk_fail(err, IMGTK_ENOMEM, "no memory for the descriptor");
    if (!status)
        status = check_parent(out, err);
    if (status)
        vmdk_descriptor_free(out);
    return status;
}

void vmdk_descriptor_free(struct vmdk_descriptor *descriptor)
{
    free(descriptor->text);
    free(descriptor->lines);
    memset(descriptor, 0, sizeof(*descriptor));
}

/* ---- Writing -------------------------------------------------------------- */

static const char template[] =
    "# Disk DescriptorFile\n"
    "version=1\n"
    "CID=%08x\n"
    "parentCID=%08x\n"
    "createType=\"%s\"\n"
    "%s%s%s"
    "\n"
    "# Extent description\n"
    "%s"
    "\n"
    "# The Disk Data Base\n"
    "#DDB\n"
    "\n"
    "ddb.virtualHWVersion = \"%s\"\n"
    "ddb.geometry.cylinders = \"%llu\"\n"
    "ddb.geometry.heads = \"%u\"\n"
    "ddb.geometry.sectors = \"63\"\n"
    "ddb.adapterType = \"%s\"\n"
    "ddb.toolsVersion = \"%s\"\n";

char *vmdk_descriptor_format(const struct vmdk_descriptor_source *source)
{
    unsigned heads = strcmp(source->adapter, "ide") == 0 ? 16 : 255;
    uint64_t cylinders = source->size / VMDK_SECTOR / (63 * heads);
    char *text = NULL;
    int length = asprintf(&text, template, source->cid, source->parent_cid, source->create_type,
                          source->parent_name ? "parentFileNameHint=\"" : "",
                          source->parent_name ? source->parent_name : "", source->parent_name ? "\"\n" : "",
                          source->lines, source->hardware_version, (unsigned long long)cylinders, heads,
                          source->adapter, source->tools_version);
    return length < 0 ? NULL : text;
}
