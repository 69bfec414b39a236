/* The options of -O vmdk. */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "layout.h"

/* In the order of enum vmdk_subformat. */
static const char *const subformats[] = { "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                                          "twoGbMaxExtentFlat", "streamOptimized", NULL };
static const char *const adapters[] = { "ide", "buslogic", "lsilogic", "legacyESX", NULL };
static const char *const backing_formats[] = { "vmdk", NULL };

const struct imgtk_opt vmdk_create_opts[] = {
    { .name = "size", .type = IMGTK_OPT_SIZE, .help = "Virtual disk size" },
    { .name = "adapter_type", .type = IMGTK_OPT_CHOICE, .choices = adapters,
      .help = "Virtual adapter type (ide when it is not given)" },
    { .name = "backing_file", .type = IMGTK_OPT_STRING, .help = "File name of a base image" },
    { .name = "backing_fmt", .type = IMGTK_OPT_CHOICE, .choices = backing_formats,
      .help = "Format of the base image; it can only be vmdk" },
    { .name = "compat6", .type = IMGTK_OPT_BOOL, .default_text = "off", .help = "VMDK version 6 image" },
    { .name = "hwversion", .type = IMGTK_OPT_STRING, .default_text = "undefined",
      .help = "VMDK hardware version (4, or 6 with compat6, when it is not given)" },
    { .name = "subformat", .type = IMGTK_OPT_CHOICE, .choices = subformats,
      .help = "How the image is laid out (monolithicSparse when it is not given)" },
    { .name = "toolsversion", .type = IMGTK_OPT_STRING, .help = "VMware guest tools version" },
    { .name = "zeroed_grain", .type = IMGTK_OPT_BOOL,
      .help = "Record grains of zeroes in the grain tables instead of writing them" },
    { .name = "cid", .type = IMGTK_OPT_STRING,
      .help = "Content ID, up to 8 hexadecimal digits (random when it is not given and SOURCE_DATE_EPOCH is not set)" },
    { .name = "compression_level", .type = IMGTK_OPT_UINT, .min = 1, .max = 12,
      .help = "Effort of streamOptimized's compression, 1 (when it is not given) to 12" },
    { .name = NULL }
};

/* What goes between quotes in a descriptor must not end them or begin a line. */
static int check_text(const char *option, const char *text, struct imgtk_error *err)
{
    for (const char *c = text; c && *c; c++)
        if (*c == '"' || (unsigned char)*c < 0x20 || *c == 0x7f)
            return imgtk_fail(err, IMGTK_EINVAL, "%s must not contain quotes or control characters", option);
    return 0;
}

static bool is_flat(enum vmdk_subformat subformat)
{
    return subformat == VMDK_MONOLITHIC_FLAT || subformat == VMDK_SPLIT_FLAT;
}

/* Compression and pipes ask for streamOptimized, which is then the default. */
static int read_subformat(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err)
{
    const char *name = imgtk_opts_text(args->opts, "subformat");
    const bool stream = (args->flags & IMGTK_CREATE_STREAM) != 0, compress = (args->flags & IMGTK_CREATE_COMPRESS) != 0;
    if (!name)
        name = subformats[stream || compress ? VMDK_STREAM : VMDK_MONOLITHIC_SPARSE];
    for (size_t i = 0; subformats[i]; i++) {
        if (strcmp(name, subformats[i]) == 0) {
            out->subformat = (enum vmdk_subformat)i;
            out->subformat_name = subformats[i];
        }
    }
    if ((stream || compress) && out->subformat != VMDK_STREAM)
        return imgtk_fail(err, IMGTK_EINVAL, "subformat %s cannot be %s; streamOptimized can", name,
                          compress ? "compressed" : "written to a pipe");
    return 0;
}

static int read_versions(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err)
{
    const char *hardware = imgtk_opts_text(args->opts, "hwversion");
    bool compat6 = imgtk_opts_bool(args->opts, "compat6");
    bool defined = hardware && strcmp(hardware, "undefined") != 0;
    if (compat6 && defined)
        return imgtk_fail(err, IMGTK_EINVAL, "compat6 cannot be enabled with hwversion set");
    out->hardware_version = defined ? hardware : compat6 ? "6" : "4";
    out->tools_version = imgtk_opts_text(args->opts, "toolsversion");
    if (!out->tools_version)
        out->tools_version = "2147483647";
    int status = check_text("hwversion", out->hardware_version, err);
    return status ? status : check_text("toolsversion", out->tools_version, err);
}

int vmdk_options_read(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    int status = read_subformat(args, out, err);
    if (!status)
        status = read_versions(args, out, err);
    if (status)
        return status;
    out->adapter = imgtk_opts_text(args->opts, "adapter_type");
    if (!out->adapter)
        out->adapter = "ide";
    out->zeroed_grain = imgtk_opts_bool(args->opts, "zeroed_grain");
    out->level = (unsigned)imgtk_opts_number(args->opts, "compression_level");
    out->parent_name = imgtk_opts_text(args->opts, "backing_file");
    if (is_flat(out->subformat) && out->parent_name)
        return imgtk_fail(err, IMGTK_EINVAL, "Flat image can't have backing file");
    if (is_flat(out->subformat) && out->zeroed_grain)
        return imgtk_fail(err, IMGTK_EINVAL, "Flat image can't enable zeroed grain");
    if (out->subformat == VMDK_STREAM && out->zeroed_grain)
        return imgtk_fail(err, IMGTK_EINVAL, "streamOptimized has no zeroed grains");
    return check_text("backing_file", out->parent_name, err);
}

static bool parse_cid(const char *text, uint32_t *out)
{
    size_t length = strspn(text, "0123456789abcdefABCDEF");
    if (length == 0 || length > 8 || text[length] != '\0')
        return false;
    *out = (uint32_t)strtoul(text, NULL, 16);
    return *out != VMDK_CID_NONE;
}

/* FNV-1a over what distinguishes images of one build, so that their CIDs differ as a rule. */
static uint32_t derive_cid(const char *epoch, const struct imgtk_create *args, const struct vmdk_options *options)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const char *texts[] = { epoch, options->subformat_name, options->adapter, options->hardware_version };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        for (const char *c = texts[i]; *c; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    hash = (hash ^ args->size) * 0x100000001b3u;
    return (uint32_t)(hash ^ (hash >> 32));
}

static int choose_cid(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err)
{
    const char *given = imgtk_opts_text(args->opts, "cid");
    if (given)
        return parse_cid(given, &out->cid) ? 0
               : imgtk_fail(err, IMGTK_EINVAL, "cid '%s' is not a number of up to 8 hexadecimal digits below ffffffff",
                            given);
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    if (epoch && *epoch)
        out->cid = derive_cid(epoch, args, out);
    else if (getrandom(&out->cid, sizeof(out->cid), 0) != (ssize_t)sizeof(out->cid))
        return imgtk_fail_errno(err, errno, "cannot get a random CID");
    if (out->cid == VMDK_CID_NONE) /* which would mean: none */
        out->cid = 0xfffffffeu;
    return 0;
}

int vmdk_options_identify(const struct imgtk_create *args, struct vmdk_options *out, struct imgtk_error *err)
{
    out->parent_cid = VMDK_CID_NONE;
    if (out->parent_name && (!args->backing_identity || !parse_cid(args->backing_identity, &out->parent_cid)))
        return imgtk_fail(err, IMGTK_EINVAL, "a vmdk image records its parent's CID: the backing file must be a vmdk "
                          "image that can be opened");
    return choose_cid(args, out, err);
}
