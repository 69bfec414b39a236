#include <ctype.h>
#include <imgtk/edit.h>
#include <stdio.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *preallocation;
    bool image_opts, shrink;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content, which never means raw)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing file where the image does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { '\0', "shrink", CLI_FLAG, FIELD(shrink), NULL, "allow a smaller size: what lies behind the new end is lost" },
    { '\0', "preallocation", CLI_TEXT, FIELD(preallocation), "off|metadata|falloc|full",
      "what is done for the bytes that a larger disk adds: nothing (the default), their places are decided, their "
      "space is reserved too, or also written with zeroes where it cannot be reserved" },
    CLI_COMMON_OPTIONS
};

/* "+1G" and "-512M" count from the size that the disk has. */
static int parse_size(struct cli *cli, const char *text, uint64_t now, uint64_t *out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t number;
    bool more = text[0] == '+', less = text[0] == '-';
    if (imgtk_parse_size(text + (more || less), &number, &err))
        return cli_fail(cli, NULL, &err);
    if ((less && number >= now) || (more && number > INT64_MAX - now) || (!more && !less && number == 0))
        return cli_error(cli, "New image size must be positive");
    *out = more ? now + number : less ? now - number : number;
    return 0;
}

/* enum imgtk_allocation, or -1: none of it. False: there is no such mode. */
static bool parse_preallocation(const char *text, int *out)
{
    static const char *const modes[] = { "off", "metadata", "falloc", "full" };
    *out = -1;
    for (int i = 0; i < 4 && text; i++, (*out)++)
        if (strcmp(text, modes[i]) == 0)
            return true;
    return !text;
}

static int refuse_to_shrink(struct cli *cli)
{
    cli_error(cli, "Use the --shrink option to perform a shrink operation.");
    return cli_error(cli, "warning: Shrinking an image will delete all data beyond the shrunken image's end. "
                          "Before performing such an operation, make sure there is no important data there.");
}

static int resize(struct cli *cli, struct imgtk_image *image, const char *text, bool shrink, int allocation)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t size = 0;
    int code = parse_size(cli, text, imgtk_image_size(image), &size);
    if (code)
        return code;
    if (size < imgtk_image_size(image) && !shrink)
        return refuse_to_shrink(cli);
    if (allocation < 0 ? imgtk_resize(image, size, shrink, &err)
                       : imgtk_grow(image, size, (enum imgtk_allocation)allocation, &err))
        return cli_fail(cli, NULL, &err);
    if (!cli->quiet)
        puts("Image resized.");
    return CLI_OK;
}

/* "-1G" would be taken for options, wherever it stands. */
static const char *take_negative_size(int *argc, char **argv)
{
    for (int i = *argc - 1; i > 0; i--) {
        if (argv[i][0] != '-' || !isdigit((unsigned char)argv[i][1]))
            continue;
        const char *size = argv[i];
        (*argc)--;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof argv[0]);
        return size;
    }
    return NULL;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    const char *size = take_negative_size(&argc, argv);
    int code, allocation, first = cli_parse(cli, &cli_resize_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != (size ? 1 : 2))
        return cli_usage_error(cli, "Expecting image file name and size");
    if (!size)
        size = argv[first + 1];
    if (!parse_preallocation(values.preallocation, &allocation))
        return cli_error(cli, "Invalid preallocation mode '%s'", values.preallocation);
    code = cli_start(cli, &values.common);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine_add(cli, CONFINE_EDIT, source.name);
    if (code == 0)
        code = confine_enter(cli);
    source.request.writable = true;
    source.request.backing_format = values.backing_format;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = resize(cli, image, size, values.shrink, allocation);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_resize_command = {
    .name = "resize",
    .summary = "Change the size of a disk",
    .operands = "[OPTION]... FILE [+|-]SIZE",
    .options = options,
    .notes =
        "SIZE is the new size, or with + and - what is added or taken away; suffixes k, M, G, T, P and E.\n",
    .examples =
        "imgtk resize disk.qcow2 +10G\n"
        "imgtk resize -f raw --shrink disk.raw 5G\n",
    .run = run,
};
