#include <imgtk/info.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *output;
    bool image_opts, list;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'l', "list", CLI_FLAG, FIELD(list), NULL, "list the bitmaps (the default; nothing else can be done with them)" },
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json", "how to print them (human)" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

/* What is printed: the format's own list, as it is or row by row. */
struct listing {
    const struct imgtk_info *tree;
    struct imgtk_info *json;       /* NULL: for people */
    const char *name;
    int64_t granularity;
    char flags[64];
    bool begun;
};

static int take_flag(void *context, const struct imgtk_info_value *value)
{
    struct listing *listing = context;
    size_t used = strlen(listing->flags);
    snprintf(listing->flags + used, sizeof listing->flags - used, "%s%s", used ? "," : "", value->text);
    if (listing->json)
        imgtk_info_text(listing->json, NULL, value->text);
    return 0;
}

static int take_field(void *context, const struct imgtk_info_value *value)
{
    struct listing *listing = context;
    if (strcmp(value->key, "name") == 0)
        listing->name = value->text;
    else if (strcmp(value->key, "granularity") == 0)
        listing->granularity = value->number;
    else if (strcmp(value->key, "flags") == 0) {
        if (listing->json)
            imgtk_info_begin_list(listing->json, "flags");
        imgtk_info_members(listing->tree, value->node, take_flag, listing);
        if (listing->json)
            imgtk_info_end(listing->json);
    }
    return 0;
}

static void print_row(struct listing *listing)
{
    if (!listing->begun)
        printf("%12s  %-14s  %s\n", "GRANULARITY", "FLAGS", "NAME");
    listing->begun = true;
    char granularity[CLI_SIZE_TEXT];
    cli_format_size((uint64_t)listing->granularity, granularity);
    printf("%12s  %-14s  ", granularity, *listing->flags ? listing->flags : "-");
    cli_print_text(listing->name);
    putchar('\n');
}

static int take_bitmap(void *context, const struct imgtk_info_value *value)
{
    struct listing *listing = context;
    listing->name = "";
    listing->granularity = 0;
    listing->flags[0] = '\0';
    if (listing->json)
        imgtk_info_begin_object(listing->json, NULL);
    imgtk_info_members(listing->tree, value->node, take_field, listing);
    if (listing->json) {
        imgtk_info_text(listing->json, "name", listing->name);
        imgtk_info_number(listing->json, "granularity", (uint64_t)listing->granularity);
        imgtk_info_end(listing->json);
    } else {
        print_row(listing);
    }
    return 0;
}

static int take_specific(void *context, const struct imgtk_info_value *value)
{
    struct listing *listing = context;
    if (value->key && strcmp(value->key, "bitmaps") == 0 && value->kind == IMGTK_INFO_LIST)
        imgtk_info_members(listing->tree, value->node, take_bitmap, listing);
    return 0;
}

static int print_json(struct cli *cli, const struct imgtk_info *json)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    char *text = imgtk_info_json(json);
    if (imgtk_info_status(json, &err))
        cli_fail(cli, NULL, &err);
    else if (!text)
        cli_error(cli, "out of memory");
    else
        puts(text);
    int code = !text || err.status ? CLI_FAILED : CLI_OK;
    free(text);
    return code;
}

static int list(struct cli *cli, const struct imgtk_layer *layer, enum cli_output output)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_layer_info about = { 0 };
    if (imgtk_layer_describe(layer, &about, &err))
        return cli_fail(cli, layer->name, &err);
    struct listing listing = { .tree = about.specific };
    int code = CLI_OK;
    if (output == CLI_OUTPUT_JSON) {
        listing.json = imgtk_info_new(IMGTK_INFO_LIST);
        code = listing.json ? CLI_OK : cli_error(cli, "out of memory");
    }
    if (code == CLI_OK)
        imgtk_info_members(listing.tree, NULL, take_specific, &listing);
    if (listing.json)
        code = print_json(cli, listing.json);
    imgtk_info_free(listing.json);
    imgtk_info_free(about.specific);
    imgtk_info_free(about.snapshots);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    enum cli_output output;
    int code, first = cli_parse(cli, &cli_bitmap_command, argc, argv, &values, &code);
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
    source.request.single_layer = true;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = list(cli, imgtk_image_layer(image, 0), output);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_bitmap_command = {
    .name = "bitmap",
    .summary = "List the dirty bitmaps of an image",
    .operands = "[OPTION]... FILE",
    .options = options,
    .examples =
        "imgtk bitmap disk.qcow2\n",
    .run = run,
};
