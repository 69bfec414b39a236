#include <imgtk/jobs.h>
#include <stdio.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "target.h"

struct values {
    struct cli_common common;
    const char *format, *backing, *backing_format;
    bool unsafe;
    struct cli_list options;
};

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, offsetof(struct values, format), "FMT",
      "format of the new image (by its suffix, else raw)" },
    { 'o', "options", CLI_LIST, offsetof(struct values, options), "OPTIONS",
      "options of the format, name=value,...; may be given several times; 'help' lists them" },
    { 'b', "backing", CLI_TEXT, offsetof(struct values, backing), "FILE",
      "backing file; a relative name counts from the folder of the new image" },
    { 'F', "backing-format", CLI_TEXT, offsetof(struct values, backing_format), "FMT", "format of the backing file" },
    { 'u', "backing-unsafe", CLI_FLAG, offsetof(struct values, unsafe), NULL, "do not open the backing file" },
    CLI_COMMON_OPTIONS
};

static int parse_size(struct cli *cli, const char *text, uint64_t *size)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_parse_size(text, size, &err))
        return cli_error(cli, "Invalid image size specified. You may use k, M, G, T, P or E suffixes for kilobytes, "
                              "megabytes, gigabytes, terabytes, petabytes and exabytes; it must be below 8E.");
    return 0;
}

/* Whether -o has a size; only VMDK has such an option. */
static bool has_size_option(const struct target *target)
{
    const struct imgtk_opt *row = target->driver->create_opts;
    while (row && row->name && strcmp(row->name, "size") != 0)
        row++;
    return row && row->name && imgtk_opts_given(target->parsed, "size");
}

/* The size is the one that was given, else the backing image's. */
static int create_sized(struct cli *cli, const struct target *target, const char *name, const char *size_text,
                        struct imgtk_image *backing)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t size;
    bool in_options = has_size_option(target);
    if (size_text && in_options)
        return cli_error(cli, "%s: The image size must be specified only once", name);
    if (in_options) {
        size = imgtk_opts_number(target->parsed, "size");
    } else if (size_text) {
        int failed = parse_size(cli, size_text, &size);
        if (failed)
            return failed;
    } else if (backing) {
        size = imgtk_image_size(backing);
    } else {
        return cli_error(cli, "%s: Image creation needs a size parameter", name);
    }
    struct imgtk_target job = { .name = name, .format = target->driver->name, .format_opts = target->options };
    if (!cli->quiet)
        target_print_formatting(target, name, size);
    if (imgtk_create_image(cli->context, &job, size, backing, &err))
        return cli_fail(cli, NULL, &err);
    return CLI_OK;
}

static int create(struct cli *cli, const struct values *values, const char *name, const char *size_text)
{
    struct target target;
    struct imgtk_image *backing = NULL;
    struct target_request request = { name, values->format, &values->options, values->backing, values->backing_format };
    int code = target_prepare(cli, &request, &target);
    if (code == 0)
        code = target_confine(cli, &target, name);
    if (code == 0)
        code = confine_enter(cli);
    if (code == 0 && target.backing && !values->unsafe)
        code = target_open_backing(cli, &target, name, &backing);
    if (code == 0)
        code = create_sized(cli, &target, name, size_text, backing);
    imgtk_image_close(backing);
    target_free(&target);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    int code, first = cli_parse(cli, &cli_create_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    bool help = target_wants_help(&values.options);
    if (first == argc && !help)
        return cli_usage_error(cli, "Expecting image file name");
    if (argc - first > 2)
        return cli_usage_error(cli, "Unexpected argument: %s", argv[first + 2]);
    code = cli_start(cli, &values.common);
    if (code)
        return code;
    if (help)
        return target_print_help(cli, argv[first], values.format);
    return create(cli, &values, argv[first], argv[first + 1]);
}

const struct cli_command cli_create_command = {
    .name = "create",
    .summary = "Make an empty image",
    .operands = "[OPTION]... FILE [SIZE]",
    .options = options,
    .notes =
        "SIZE is in bytes, or with a suffix k, M, G, T, P or E; without it the backing file's size is taken.\n",
    .examples =
        "imgtk create -f qcow2 disk.qcow2 20G\n"
        "imgtk create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
        "imgtk create -f qcow2 -o help\n",
    .run = run,
};
