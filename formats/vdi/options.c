/* What the user may choose, and what follows from it. */
#include <string.h>

#include "vdi.h"

const struct imgtk_opt vdi_open_opts[] = {
    { .name = "backing", .type = IMGTK_OPT_STRING,
      .help = "the parent of a differencing image, whose file does not name it" },
    { .name = NULL },
};

static const char *const preallocations[] = { "off", "metadata", NULL };

const struct imgtk_opt vdi_create_opts[] = {
    { .name = "static", .type = IMGTK_OPT_BOOL, .default_text = "off",
      .help = "give every block its place, in order" },
    { .name = "preallocation", .type = IMGTK_OPT_CHOICE, .choices = preallocations,
      .help = "off, or metadata: the same as static=on" },
    { .name = "uuid", .type = IMGTK_OPT_STRING,
      .help = "the UUIDs of the image and its last change (default: random, or from SOURCE_DATE_EPOCH and the size)" },
    { .name = NULL },
};

static int choose_uuids(const char *text, struct vdi_header *out, struct imgtk_error *err)
{
    int status = uuid_choose(text, out->disk_size, 0, out->uuid, err);
    return status ? status : uuid_choose(text, out->disk_size, 1, out->uuid_modify, err);
}

int vdi_options_parse(const struct imgtk_create *args, struct vdi_header *out, struct imgtk_error *err)
{
    const struct imgtk_opts *opts = args->opts;
    const char *preallocation = opts ? imgtk_opts_text(opts, "preallocation") : NULL;
    bool fixed = opts && imgtk_opts_bool(opts, "static");
    if (preallocation && strcmp(preallocation, "metadata") == 0)
        fixed = true;
    out->type = fixed ? VDI_STATIC : VDI_DYNAMIC;
    return choose_uuids(opts ? imgtk_opts_text(opts, "uuid") : NULL, out, err);
}
