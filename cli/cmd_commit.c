#include <imgtk/edit.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *base;
    bool image_opts, keep;
    struct progress_options progress;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing file where the image does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { 'b', "base", CLI_TEXT, FIELD(base), "BASE",
      "commit into that file of the backing chain (the image's own backing file); implies -d" },
    { 'd', "drop", CLI_FLAG, FIELD(keep), NULL, "do not empty the image afterwards" },
    PROGRESS_OPTIONS(FIELD(progress)),
    { 'r', "rate", CLI_ACCEPTED, 0, "RATE", "accepted for qemu-img's sake, without effect" },
    { 't', "cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake; imgtk syncs where the order matters" },
    CLI_COMMON_OPTIONS
};

static bool is_layer(const struct imgtk_layer *layer, const char *name)
{
    struct stat a, b;
    return strcmp(layer->name, name) == 0 || (stat(layer->name, &a) == 0 && stat(name, &b) == 0 &&
                                              a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

/* The layer to commit into; 0: the failure is printed. */
static size_t find_base(struct cli *cli, const struct imgtk_image *image, const char *base)
{
    const char *name = imgtk_image_layer(image, 0)->name;
    if (imgtk_image_depth(image) == 1) {
        cli_error(cli, "Image does not have a backing file");
        return 0;
    }
    for (size_t depth = 1; base && depth < imgtk_image_depth(image); depth++)
        if (is_layer(imgtk_image_layer(image, depth), base))
            return depth;
    if (base)
        cli_error(cli, "Did not find '%s' in the backing chain of '%s'", base, name);
    return base ? 0 : 1;
}

static int commit(struct cli *cli, const struct values *values, struct imgtk_image *image)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    struct imgtk_commit job = { .image = image, .depth = find_base(cli, image, values->base),
                                .keep = values->keep || values->base, .cancel = signals_stop(),
                                .progress = progress_update, .progress_context = &progress };
    if (job.depth == 0)
        return CLI_FAILED;
    int code = progress_start(cli, &values->progress, false, &progress);
    if (code)
        return code;
    int status = imgtk_commit(&job, &err);
    progress_finish(&progress, status == 0);
    if (status)
        return cli_fail(cli, NULL, &err);
    if (!cli->quiet)
        puts("Image committed.");
    return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    int code, first = cli_parse(cli, &cli_commit_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    signals_catch();
    code = cli_start(cli, &values.common);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine_add(cli, CONFINE_EDIT, source.name);
    if (code == 0)
        code = confine_enter(cli);
    source.request.writable = !values.keep && !values.base;
    source.request.backing_format = values.backing_format;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = commit(cli, &values, image);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_commit_command = {
    .name = "commit",
    .summary = "Write what an overlay holds into its backing file",
    .operands = "[OPTION]... FILE",
    .options = options,
    .notes =
        "The backing file is opened for writing under the reference policy. Other overlays of it change\n"
        "with it.\n",
    .examples =
        "imgtk commit overlay.qcow2\n"
        "imgtk commit -b base.qcow2 overlay.qcow2\n",
    .run = run,
};
