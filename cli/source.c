#include "source.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"

/* Cuts "key=value" from *text in place, each ",," as one comma; NULL at the end. */
static char *take_pair(char **text)
{
    char *begin = *text, *in = begin, *out = begin;
    if (!*begin)
        return NULL;
    for (; *in; in++) {
        if (*in == ',') {
            if (in[1] != ',')
                break;
            in++;
        }
        *out++ = *in;
    }
    *text = *in ? in + 1 : in;
    *out = '\0';
    return begin;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Appends ",key=value", commas doubled. */
static void append_option(char *list, const char *pair)
{
    char *out = list + strlen(list);
    if (out != list)
        *out++ = ',';
    for (; *pair; pair++) {
        if (*pair == ',')
            *out++ = ',';
        *out++ = *pair;
    }
    *out = '\0';
}

/* Keys that change nothing here; scripts give them. */
static bool is_without_effect(const char *pair)
{
    static const char *const pairs[] = { "file.driver=file", "file.driver=host_device", "file.locking=off",
                                         "file.locking=auto", "file.locking=on", "read-only=on", "read-only=off" };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (strcmp(pair, pairs[i]) == 0)
            return true;
    return false;
}

/* Sorts one pair into the source; what is no key of ours is an option of the format. */
static int sort_pair(struct cli *cli, char *pair, struct source *out, char *options)
{
    char *value = strchr(pair, '=');
    if (!value)
        return cli_usage_error(cli, "--image-opts: '%s' is not of the form key=value", pair);
    value++;
    if (has_prefix(pair, "driver="))
        out->request.format = value;
    else if (has_prefix(pair, "file.filename=") || has_prefix(pair, "filename="))
        out->name = value;
    else if (is_without_effect(pair))
        return 0;
    else if (has_prefix(pair, "file.") || has_prefix(pair, "backing.") || has_prefix(pair, "read-only="))
        return cli_usage_error(cli, "--image-opts: '%s' is not supported", pair);
    else
        append_option(options, pair);
    return 0;
}

static int parse_pairs(struct cli *cli, struct source *out, char *text, char *options)
{
    for (char *pair; (pair = take_pair(&text)) != NULL;) {
        int failed = sort_pair(cli, pair, out, options);
        if (failed)
            return failed;
    }
    if (!out->name)
        return cli_usage_error(cli, "--image-opts: the key file.filename is missing");
    out->request.format_opts = *options ? options : NULL;
    return 0;
}

int source_parse(struct cli *cli, const char *text, const char *format, bool image_opts, struct source *out)
{
    memset(out, 0, sizeof *out);
    out->request.format = format;
    out->name = text;
    if (!image_opts)
        return 0;
    if (format)
        return cli_usage_error(cli, "--image-opts and --format are mutually exclusive");
    out->name = NULL;
    size_t length = strlen(text) + 1;
    out->memory = calloc(3, length);
    if (!out->memory)
        return cli_error(cli, "out of memory");
    memcpy(out->memory, text, length);
    return parse_pairs(cli, out, out->memory, out->memory + length);
}

void source_free(struct source *source)
{
    free(source->memory);
    source->memory = NULL;
}

int source_open(struct cli *cli, const struct source *source, struct imgtk_image **out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (!confine_is_ready(cli))
        return cli_error(cli, "%s: this command does not take untrusted images", source->name);
    if (imgtk_image_open(cli->context, source->name, &source->request, out, &err))
        return cli_fail(cli, NULL, &err);
    return 0;
}

static bool has_scheme(const char *name)
{
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || (length > 0 && strchr("+-.", name[length]) && name[length]))
        length++;
    return length > 1 && name[length] == ':';
}

char *source_resolve(const char *beside, const char *name)
{
    const char *slash = strrchr(beside, '/');
    if (!slash || name[0] == '/' || strcmp(name, "-") == 0 || has_scheme(name) || has_scheme(beside))
        return strdup(name);
    size_t folder = (size_t)(slash - beside) + 1, length = strlen(name) + 1;
    char *path = malloc(folder + length);
    if (!path)
        return NULL;
    memcpy(path, beside, folder);
    memcpy(path + folder, name, length);
    return path;
}
