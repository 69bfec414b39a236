#include <stdio.h>
#include <stdlib.h>

#include "confine.h"
#include "info_report.h"
#include "options.h"
#include "output.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *output;
    bool chain, image_opts;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing file where the image does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json", "how to print it (human)" },
    { '\0', "backing-chain", CLI_FLAG, FIELD(chain), NULL,
      "tell about the backing files too; without it none is opened" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

static int add_layer(const struct imgtk_layer *layer, struct imgtk_info *info, struct imgtk_error *err)
{
    struct info_report report;
    int status = info_report_make(layer, &report, err);
    if (status == 0)
        info_report_add(&report, info);
    info_report_free(&report);
    return status;
}

static int add_chain(const struct imgtk_image *image, struct imgtk_info *info, struct imgtk_error *err)
{
    for (size_t depth = 0; depth < imgtk_image_depth(image); depth++) {
        imgtk_info_begin_object(info, NULL);
        int status = add_layer(imgtk_image_layer(image, depth), info, err);
        imgtk_info_end(info);
        if (status)
            return status;
    }
    return 0;
}

static int print_json(struct cli *cli, const struct imgtk_image *image, bool chain)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_info *info = imgtk_info_new(chain ? IMGTK_INFO_LIST : IMGTK_INFO_OBJECT);
    if (!info)
        return cli_error(cli, "out of memory");
    int status = chain ? add_chain(image, info, &err) : add_layer(imgtk_image_layer(image, 0), info, &err);
    if (status == 0)
        status = imgtk_info_status(info, &err);
    char *text = status ? NULL : imgtk_info_json(info);
    if (text)
        puts(text);
    else if (status == 0)
        status = imgtk_fail(&err, IMGTK_ENOMEM, "out of memory");
    free(text);
    imgtk_info_free(info);
    return status ? cli_fail(cli, NULL, &err) : CLI_OK;
}

static int print_human(struct cli *cli, const struct imgtk_image *image)
{
    for (size_t depth = 0; depth < imgtk_image_depth(image); depth++) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        struct info_report report;
        int status = info_report_make(imgtk_image_layer(image, depth), &report, &err);
        if (status == 0 && depth > 0)
            putchar('\n');
        if (status == 0)
            info_report_print(&report);
        info_report_free(&report);
        if (status)
            return cli_fail(cli, NULL, &err);
    }
    return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    enum cli_output output;
    int code, first = cli_parse(cli, &cli_info_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    code = cli_parse_output(cli, values.output, &output);
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine_add(cli, CONFINE_READ, source.name);
    if (code == 0)
        code = confine_enter(cli);
    source.request.backing_format = values.backing_format;
    source.request.single_layer = !values.chain;
    source.request.check = true; /* a dirty or corrupt image is told about too */
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = output == CLI_OUTPUT_JSON ? print_json(cli, image, values.chain) : print_human(cli, image);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_info_command = {
    .name = "info",
    .summary = "Tell what an image is: format, sizes, backing file, snapshots",
    .operands = "[OPTION]... FILE",
    .options = options,
    .examples =
        "imgtk info disk.qcow2\n"
        "imgtk info --backing-chain --output=json overlay.qcow2\n",
    .run = run,
};
