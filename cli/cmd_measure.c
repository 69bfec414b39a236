#include <imgtk/info.h>
#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "source.h"
#include "target.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *target_format, *snapshot, *size, *output;
    bool image_opts, compress;
    struct cli_list options;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the source (by its content)" },
    { '\0', "source-format", CLI_TEXT, FIELD(format), "FMT", NULL },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the source's backing file where the source does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { 'l', "snapshot", CLI_TEXT, FIELD(snapshot), "SNAPSHOT", "measure that internal snapshot, by name or id" },
    { 's', "size", CLI_TEXT, FIELD(size), "SIZE", "measure an empty image of that size instead of FILE" },
    { 'O', "target-format", CLI_TEXT, FIELD(target_format), "FMT", "format of the new image (raw)" },
    { 'o', "target-options", CLI_LIST, FIELD(options), "OPTIONS",
      "options of the new image's format, name=value,...; may be given several times; 'help' lists them" },
    { 'c', "compress", CLI_FLAG, FIELD(compress), NULL, "the new image is compressed: its size is an upper bound" },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json", "how to print it (human)" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

/* qemu-img tells what bitmaps would take where both images can have them; convert copies none. */
static bool tells_bitmaps(const struct imgtk_image *image, const struct imgtk_measure *measure)
{
    struct imgtk_layer_info about;
    if (!image || !measure->can_have_bitmaps || imgtk_layer_describe(imgtk_image_layer(image, 0), &about, NULL))
        return false;
    imgtk_info_free(about.specific);
    imgtk_info_free(about.snapshots);
    return about.can_have_bitmaps;
}

struct findings {
    struct imgtk_measure measure;
    bool bitmaps;
};

/* Scripts compare the text with qemu-img's: what that does not tell, it has with -v only. */
static void print_human(const struct findings *found, bool verbose)
{
    const struct imgtk_measure *measure = &found->measure;
    printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)measure->required,
           (unsigned long long)measure->fully_allocated);
    if (found->bitmaps)
        puts("bitmaps size: 0");
    if (measure->file_size_known && verbose)
        printf("file size: %llu\n", (unsigned long long)measure->file_size);
}

static int print_json(struct cli *cli, const struct findings *found)
{
    const struct imgtk_measure *measure = &found->measure;
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT);
    char *text = NULL;
    if (info) {
        if (found->bitmaps)
            imgtk_info_number(info, "bitmaps", 0);
        imgtk_info_number(info, "required", measure->required);
        imgtk_info_number(info, "fully-allocated", measure->fully_allocated);
        if (measure->file_size_known)
            imgtk_info_number(info, "file-size", measure->file_size);
        if (measure->upper_bound)
            imgtk_info_bool(info, "upper-bound", true);
        text = imgtk_info_status(info, NULL) == 0 ? imgtk_info_json(info) : NULL;
    }
    if (text)
        puts(text);
    free(text);
    imgtk_info_free(info);
    return text ? CLI_OK : cli_error(cli, "out of memory");
}

static int measure(struct cli *cli, const struct values *values, struct imgtk_image *image, const struct target *target,
                   enum cli_output output)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct findings found = { .bitmaps = false };
    struct imgtk_measure_job job = {
        .sources = &image, .source_count = image != NULL,
        .target = { .format = target->driver->name, .format_opts = target->options, .compress = values->compress },
    };
    if (values->size && imgtk_parse_size(values->size, &job.size, &err))
        return cli_fail(cli, "--size", &err);
    if (imgtk_measure_target(cli->context, &job, &found.measure, &err))
        return cli_fail(cli, NULL, &err);
    found.bitmaps = tells_bitmaps(image, &found.measure);
    if (output == CLI_OUTPUT_JSON)
        return print_json(cli, &found);
    print_human(&found, values->common.verbose);
    return CLI_OK;
}

static int measure_named(struct cli *cli, const struct values *values, const char *name, enum cli_output output)
{
    struct source source = { .memory = NULL };
    struct target target;
    struct imgtk_image *image = NULL;
    struct target_request request = { NULL, values->target_format, &values->options, NULL, NULL };
    int code = target_prepare(cli, &request, &target);
    if (code == 0 && name)
        code = source_parse(cli, name, values->format, values->image_opts, &source);
    source.request.backing_format = values->backing_format;
    source.request.snapshot = values->snapshot;
    if (code == 0)
        code = confine_add(cli, CONFINE_READ, source.name);
    if (code == 0)
        code = confine_enter(cli);
    if (code == 0 && name)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = measure(cli, values, image, &target, output);
    imgtk_image_close(image);
    source_free(&source);
    target_free(&target);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    enum cli_output output;
    int code, first = cli_parse(cli, &cli_measure_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    bool help = target_wants_help(&values.options);
    if (argc - first > 1)
        return cli_usage_error(cli, "At most one filename argument is allowed.");
    if (!help && values.size && argc > first)
        return cli_error(cli, "--size N cannot be used together with a filename.");
    if (!help && !values.size && argc == first)
        return cli_error(cli, "Either --size N or one filename must be specified.");
    code = cli_parse_output(cli, values.output, &output);
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code)
        return code;
    if (help)
        return target_print_help(cli, NULL, values.target_format);
    return measure_named(cli, &values, argv[first], output);
}

const struct cli_command cli_measure_command = {
    .name = "measure",
    .summary = "Tell how large an image would be",
    .operands = "[OPTION]... FILE | --size SIZE",
    .options = options,
    .examples =
        "imgtk measure -O qcow2 disk.raw\n"
        "imgtk measure -O qcow2 -o cluster_size=2M --size 10T\n",
    .run = run,
};
