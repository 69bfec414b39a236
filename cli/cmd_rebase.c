#include <imgtk/edit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *old_backing_format, *backing, *backing_format;
    bool image_opts, unsafe;
    struct progress_options progress;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { 'b', "backing", CLI_TEXT, FIELD(backing), "FILE",
      "the new backing file, as the image records it: counted from its folder; '' for none" },
    { 'B', NULL, CLI_TEXT, FIELD(backing), "FILE", NULL },
    { 'F', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT", "format of the new backing file" },
    { '\0', "old-backing-format", CLI_TEXT, FIELD(old_backing_format), "FMT",
      "format of the present backing file where the image does not record it" },
    { 'u', "backing-unsafe", CLI_FLAG, FIELD(unsafe), NULL,
      "change the recorded name alone: neither backing file is opened, and the disk may read differently" },
    PROGRESS_OPTIONS(FIELD(progress)),
    { 't', "cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake; imgtk syncs where the order matters" },
    { 'T', "backing-cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake" },
    { '\0', "source-cache", CLI_ACCEPTED, 0, "MODE", NULL },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

/* The new backing file is the user's own, found where a reader of the image will look for it. */
static int open_backing(struct cli *cli, const struct values *values, const char *image_name, struct imgtk_image **out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image_request request = { .format = values->backing_format };
    char *path = source_resolve(image_name, values->backing);
    if (!path)
        return cli_error(cli, "out of memory");
    int status = imgtk_image_open(cli->context, path, &request, out, &err);
    free(path);
    if (status == 0)
        return 0;
    imgtk_fail_prefix(&err, "Could not open new backing file '%s'", values->backing);
    return cli_fail(cli, NULL, &err);
}

static int confine(struct cli *cli, const struct values *values, const char *image_name)
{
    bool opens = !values->unsafe && *values->backing;
    char *path = opens ? source_resolve(image_name, values->backing) : NULL;
    if (opens && !path)
        return cli_error(cli, "out of memory");
    int code = confine_add(cli, CONFINE_EDIT, image_name);
    if (code == 0)
        code = confine_add(cli, CONFINE_READ, path);
    free(path);
    return code ? code : confine_enter(cli);
}

static int rebase(struct cli *cli, const struct values *values, struct imgtk_image *image, struct imgtk_image *backing)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    bool named = values->backing && *values->backing;
    struct imgtk_rebase job = { .image = image, .backing = backing, .unsafe = values->unsafe, .cancel = signals_stop(),
                                .backing_name = named ? values->backing : NULL,
                                .backing_format = named ? values->backing_format : NULL,
                                .progress = progress_update, .progress_context = &progress };
    int code = progress_start(cli, &values->progress, false, &progress);
    if (code)
        return code;
    int status = imgtk_rebase(&job, &err);
    progress_finish(&progress, status == 0);
    return status ? cli_fail(cli, NULL, &err) : CLI_OK;
}

static int check_values(struct cli *cli, const struct values *values)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_driver *driver;
    if (!values->backing && !values->unsafe)
        return cli_usage_error(cli, "Must specify backing file (-b) or use unsafe mode (-u)");
    if (values->backing && *values->backing && !values->backing_format)
        return cli_error(cli, "Could not change the backing file to '%s': backing format must be specified",
                         values->backing);
    if (values->backing_format && imgtk_driver_find(cli->context, values->backing_format, &driver, &err))
        return cli_fail(cli, NULL, &err);
    return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL, *backing = NULL;
    int code, first = cli_parse(cli, &cli_rebase_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    signals_catch();
    code = cli_start(cli, &values.common);
    if (code == 0)
        code = check_values(cli, &values);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine(cli, &values, source.name);
    source.request.writable = true;
    source.request.single_layer = values.unsafe;
    source.request.backing_format = values.old_backing_format;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0 && !values.unsafe && *values.backing)
        code = open_backing(cli, &values, source.name, &backing);
    if (code == 0)
        code = rebase(cli, &values, image, backing);
    imgtk_image_close(backing);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_rebase_command = {
    .name = "rebase",
    .summary = "Give an image another backing file",
    .operands = "[OPTION]... FILE",
    .options = options,
    .notes =
        "The disk reads as before: what differs from the new backing file is written into the image.\n",
    .examples =
        "imgtk rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\n"
        "imgtk rebase -b '' overlay.qcow2\n",
    .run = run,
};
