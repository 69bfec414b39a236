#include <imgtk/edit.h>
#include <imgtk/info.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "confine.h"
#include "info_report.h"
#include "options.h"
#include "output.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *create, *apply, *delete;
    bool image_opts, list;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'l', "list", CLI_FLAG, FIELD(list), NULL, "list the snapshots (the default)" },
    { 'c', "create", CLI_TEXT, FIELD(create), "NAME", "create a snapshot of the disk as it is" },
    { 'a', "apply", CLI_TEXT, FIELD(apply), "SNAPSHOT",
      "make the disk what it was in that snapshot; what it is now is lost" },
    { 'd', "delete", CLI_TEXT, FIELD(delete), "SNAPSHOT", "delete that snapshot" },
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

static int list(struct cli *cli, const struct imgtk_image *image)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_layer_info about = { 0 };
    if (imgtk_layer_describe(imgtk_image_layer(image, 0), &about, &err))
        return cli_fail(cli, imgtk_image_layer(image, 0)->name, &err);
    info_print_snapshots(about.snapshots);
    imgtk_info_free(about.specific);
    imgtk_info_free(about.snapshots);
    return CLI_OK;
}

static int change(struct cli *cli, struct imgtk_image *image, const struct values *values)
{
    static const char *const verbs[] = { "create", "apply", "delete" };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct imgtk_snapshot_change change = { .action = IMGTK_SNAPSHOT_CREATE, .name = values->create,
                                            .date_sec = (uint32_t)now.tv_sec, .date_nsec = (uint32_t)now.tv_nsec };
    if (values->apply) {
        change.action = IMGTK_SNAPSHOT_APPLY;
        change.name = values->apply;
    } else if (values->delete) {
        change.action = IMGTK_SNAPSHOT_DELETE;
        change.name = values->delete;
    }
    if (imgtk_snapshot_change(image, &change, &err) == 0)
        return CLI_OK;
    imgtk_fail_prefix(&err, "Could not %s snapshot '%s'", verbs[change.action], change.name);
    return cli_fail(cli, NULL, &err);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    int code, first = cli_parse(cli, &cli_snapshot_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    int changes = (values.create != NULL) + (values.apply != NULL) + (values.delete != NULL);
    if (changes + values.list > 1)
        return cli_usage_error(cli, "Cannot mix '-l', '-a', '-c', '-d'");
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    code = cli_start(cli, &values.common);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine_add(cli, changes > 0 ? CONFINE_EDIT : CONFINE_READ, source.name);
    if (code == 0)
        code = confine_enter(cli);
    source.request.single_layer = true;
    source.request.writable = changes > 0;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = changes > 0 ? change(cli, image, &values) : list(cli, image);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

const struct cli_command cli_snapshot_command = {
    .name = "snapshot",
    .summary = "List, create, apply or delete internal snapshots",
    .operands = "[OPTION]... FILE",
    .options = options,
    .notes =
        "SNAPSHOT is an id or, where no snapshot has that id, a name.\n",
    .examples =
        "imgtk snapshot disk.qcow2\n"
        "imgtk snapshot -c before-update disk.qcow2\n"
        "imgtk snapshot -a before-update disk.qcow2\n",
    .run = run,
};
