#include <imgtk/info.h>
#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "map_rows.h"
#include "options.h"
#include "output.h"
#include "picture/picture.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *output, *start, *length, *relative_to, *relative_format;
    bool image_opts, depths;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing file where the image does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json|jsonl|intervals|clusters|bar|svg|html",
      "how to print it (human); bar, svg and html are pictures" },
    { 's', "start-offset", CLI_TEXT, FIELD(start), "OFFSET", "begin there" },
    { 'l', "max-length", CLI_TEXT, FIELD(length), "LENGTH", "tell about that many bytes" },
    { '\0', "allocation-depth", CLI_FLAG, FIELD(depths), NULL,
      "tell which file of the chain holds each range, also of the chain behind an NBD server (qemu-nbd -A)" },
    { '\0', "relative-to", CLI_TEXT, FIELD(relative_to), "BASE", "tell only what differs from that image" },
    { '\0', "relative-format", CLI_TEXT, FIELD(relative_format), "FMT", "format of BASE (by its content)" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

/* A map is printed in rows, or collected and drawn. */
struct form {
    const char *name;
    const struct map_form *rows;
    const struct picture_form *picture;
};
static const struct form forms[] = {
    { "human", &map_form_human, NULL }, { "json", &map_form_json, NULL }, { "jsonl", &map_form_jsonl, NULL },
    { "intervals", &map_form_intervals, NULL }, { "clusters", &map_form_clusters, NULL },
    { "bar", NULL, &picture_form_bar }, { "svg", NULL, &picture_form_svg },
    { "html", NULL, &picture_form_html },
};

static int parse_form(struct cli *cli, const char *text, const struct form **out)
{
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(text ? text : "human", forms[i].name) == 0) {
            *out = &forms[i];
            return 0;
        }
    }
    return cli_usage_error(cli, "--output must be used with human, json, jsonl, intervals, clusters, bar, svg or html "
                           "as argument, not '%s'", text);
}

static int parse_offset(struct cli *cli, const char *text, const char *what, uint64_t otherwise, uint64_t *out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    *out = otherwise;
    if (text && imgtk_parse_size(text, out, &err))
        return cli_error(cli, "%s: %s", what, err.message);
    return 0;
}

/* What the command line asks for, as numbers. */
struct wish {
    const struct form *form;
    uint64_t start, length;
    bool depths;
};

static bool in_one_layer(const struct form *form)
{
    return form->rows && form->rows->single_layer;
}

static int parse_wish(struct cli *cli, const struct values *values, struct wish *out)
{
    int failed = parse_form(cli, values->output, &out->form);
    out->depths = values->depths;
    if (failed)
        return failed;
    if (values->relative_to && in_one_layer(out->form))
        return cli_usage_error(cli, "--relative-to compares whole disks: it cannot be combined with --output=%s",
                               values->output);
    bool tells_depths = out->form->rows && !out->form->rows->in_clusters;
    if (values->depths && (values->relative_to || !tells_depths))
        return cli_usage_error(cli, "--allocation-depth cannot be combined with %s%s",
                               tells_depths ? "--relative-to" : "--output=", tells_depths ? "" : values->output);
    failed = parse_offset(cli, values->start, "--start-offset", 0, &out->start);
    return failed ? failed : parse_offset(cli, values->length, "--max-length", UINT64_MAX, &out->length);
}

static int print_rows(const struct wish *wish, struct imgtk_map *job, struct imgtk_error *err)
{
    const struct map_form *form = wish->form->rows;
    struct map_rows rows = { .image = job->image, .form = form, .differences = job->relative_to != NULL,
                             .depths = wish->depths };
    job->row = form->row;
    job->context = &rows;
    int status = map_rows_begin(&rows, wish->start, err);
    if (status == 0 && wish->start < imgtk_image_size(job->image) && wish->length > 0)
        status = imgtk_map(job, err);
    if (status == 0)
        form->end(&rows);
    map_rows_flush(&rows);
    return status;
}

static int map_image(struct cli *cli, const struct wish *wish, struct imgtk_image *image, struct imgtk_image *base)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_map job = { .image = image, .start = wish->start, .length = wish->length, .relative_to = base,
                             .allocation_depth = wish->depths };
    int status = wish->form->rows ? print_rows(wish, &job, &err)
                                  : picture_draw(&job, wish->form->picture, stdout, &err);
    return status ? cli_fail(cli, NULL, &err) : CLI_OK;
}

static int map_named(struct cli *cli, const struct values *values, const struct wish *wish, const char *name)
{
    struct source source = { 0 }, base_source = { 0 };
    struct imgtk_image *image = NULL, *base = NULL;
    int code = source_parse(cli, name, values->format, values->image_opts, &source);
    source.request.backing_format = values->backing_format;
    source.request.single_layer = in_one_layer(wish->form);
    source.request.allocation_depth = wish->depths;
    if (code == 0 && values->relative_to)
        code = source_parse(cli, values->relative_to, values->relative_format, false, &base_source);
    if (code == 0)
        code = confine_add(cli, CONFINE_READ, source.name);
    if (code == 0)
        code = confine_add(cli, CONFINE_READ, base_source.name);
    if (code == 0)
        code = confine_enter(cli);
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0 && values->relative_to)
        code = source_open(cli, &base_source, &base);
    if (code == 0)
        code = map_image(cli, wish, image, base);
    imgtk_image_close(base);
    imgtk_image_close(image);
    source_free(&base_source);
    source_free(&source);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct wish wish;
    int code, first = cli_parse(cli, &cli_map_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    code = parse_wish(cli, &values, &wish);
    if (code == 0)
        code = cli_start(cli, &values.common);
    return code ? code : map_named(cli, &values, &wish, argv[first]);
}

const struct cli_command cli_map_command = {
    .name = "map",
    .summary = "Tell where an image holds data, zeroes and nothing",
    .operands = "[OPTION]... FILE",
    .options = options,
    .notes =
        "human lists data and where the bytes lie in which file; json is qemu-img's list; jsonl has one\n"
        "object per line; intervals and clusters tell which clusters this one file holds, whatever its\n"
        "backing file has. bar draws the disk in the terminal; svg and html are pictures for a browser.\n",
    .examples =
        "imgtk map disk.qcow2\n"
        "imgtk map --output=jsonl --start-offset=1G --max-length=10M disk.qcow2\n"
        "imgtk map --output=json --relative-to=yesterday.qcow2 today.qcow2\n"
        "imgtk map --output=bar disk.qcow2\n"
        "imgtk map --output=html disk.qcow2 > disk.html\n",
    .run = run,
};
