/* What can be asked of a new image, and what cannot be asked together. */
#include <inttypes.h>
#include <string.h>

#include "writer.h"

static const char *const compat_choices[] = { "0.10", "1.1", "v2", "v3", NULL };
static const char *const compression_choices[] = { "zlib", "zstd", NULL };
/* In the order of enum qcow2_preallocation. */
static const char *const preallocation_choices[] = { "off", "metadata", "falloc", "full", NULL };

const struct imgtk_opt qcow2_create_opts[] = {
    { .name = "backing_file", .type = IMGTK_OPT_STRING, .help = "File name of a base image" },
    { .name = "backing_fmt", .type = IMGTK_OPT_STRING, .help = "Image format of the base image" },
    { .name = "cluster_size", .type = IMGTK_OPT_SIZE, .default_text = "65536",
      .help = "Size of a cluster, a power of two from 512 to 2M" },
    { .name = "compat", .type = IMGTK_OPT_CHOICE, .default_text = "1.1", .choices = compat_choices,
      .help = "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { .name = "compression_level", .type = IMGTK_OPT_UINT,
      .help = "Effort of compression (zlib: 1 to 12, or 9 without libdeflate; zstd: 1 to 19); not set: a fast one" },
    { .name = "compression_type", .type = IMGTK_OPT_CHOICE, .default_text = "zlib", .choices = compression_choices,
      .help = "Method used for compressed clusters" },
    { .name = "data_file", .type = IMGTK_OPT_STRING, .help = "File name of an external data file" },
    { .name = "data_file_raw", .type = IMGTK_OPT_BOOL, .default_text = "off",
      .help = "The external data file must stay valid as a raw image" },
    { .name = "extended_l2", .type = IMGTK_OPT_BOOL, .default_text = "off",
      .help = "Extended L2 tables: 32 subclusters in a cluster" },
    { .name = "lazy_refcounts", .type = IMGTK_OPT_BOOL, .default_text = "off", .help = "Postpone refcount updates" },
    { .name = "preallocation", .type = IMGTK_OPT_CHOICE, .default_text = "off", .choices = preallocation_choices,
      .help = "What is allocated in advance" },
    { .name = "refcount_bits", .type = IMGTK_OPT_UINT, .default_text = "16",
      .help = "Width of a reference count in bits, a power of two up to 64" },
    { .name = NULL },
};

/* Exact for a power of two. */
static unsigned log2_of(uint64_t value)
{
    unsigned bits = 0;
    while (value > 1) {
        value >>= 1;
        bits++;
    }
    return bits;
}

static int needs_v3(const struct qcow2_create_options *options, bool wanted, const char *what, struct imgtk_error *err)
{
    if (!wanted || options->version >= 3)
        return 0;
    return imgtk_fail(err, IMGTK_EINVAL,
                      "%s compatibility level 1.1 and above (use compat=v3 or greater)", what);
}

static int read_geometry(const struct imgtk_opts *opts, struct qcow2_create_options *out, struct imgtk_error *err)
{
    uint64_t cluster_size = imgtk_opts_number(opts, "cluster_size");
    if (!imgtk_is_power_of_two(cluster_size) || cluster_size < UINT64_C(1) << QCOW2_MIN_CLUSTER_BITS ||
        cluster_size > UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS)
        return imgtk_fail(err, IMGTK_EINVAL,
                          "Cluster size must be a power of two between 512 and 2048k, not %" PRIu64, cluster_size);
    uint64_t refcount_bits = imgtk_opts_number(opts, "refcount_bits");
    if (!imgtk_is_power_of_two(refcount_bits) || refcount_bits > UINT64_C(1) << QCOW2_MAX_REFCOUNT_ORDER)
        return imgtk_fail(err, IMGTK_EINVAL,
                          "Refcount width must be a power of two and may not exceed 64 bits, not %" PRIu64,
                          refcount_bits);
    bool extended_l2 = imgtk_opts_bool(opts, "extended_l2");
    if (extended_l2 && cluster_size < UINT64_C(1) << QCOW2_MIN_EXTENDED_CLUSTER_BITS)
        return imgtk_fail(err, IMGTK_EINVAL,
                          "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
    out->geometry = qcow2_geometry(log2_of(cluster_size), extended_l2, log2_of(refcount_bits));
    return 0;
}

static int check_version(const struct qcow2_create_options *options, struct imgtk_error *err)
{
    int status = needs_v3(options, options->geometry.refcount_order != 4,
                          "Different refcount widths than 16 bits require", err);
    if (!status)
        status = needs_v3(options, options->lazy_refcounts, "Lazy refcounts only supported with", err);
    if (!status)
        status = needs_v3(options, options->geometry.extended_l2, "Extended L2 entries are only supported with", err);
    if (!status)
        status = needs_v3(options, options->data_file, "External data files are only supported with", err);
    if (!status)
        status = needs_v3(options, options->compression_type != QCOW2_COMPRESSION_ZLIB,
                          "Non-zlib compression type is only supported with", err);
    return status;
}

static int check_names(const struct qcow2_create_options *options, struct imgtk_error *err)
{
    if (options->backing_file && !options->backing_fmt)
        return imgtk_fail(err, IMGTK_EINVAL, "Backing file specified without backing format");
    if (!options->backing_file && options->backing_fmt)
        return imgtk_fail(err, IMGTK_EINVAL, "Backing format cannot be used without backing file");
    if (options->data_file_raw && !options->data_file)
        return imgtk_fail(err, IMGTK_EINVAL, "data_file_raw requires data_file");
    if (options->data_file_raw && options->backing_file)
        return imgtk_fail(err, IMGTK_EINVAL, "Backing file and data_file_raw cannot be used at the same time");
    const char *const names[] = { options->backing_file, options->backing_fmt, options->data_file };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i] && strlen(names[i]) > QCOW2_MAX_NAME)
            return imgtk_fail(err, IMGTK_ELIMIT, "a name of %zu bytes is too long for a header: the limit is %d bytes",
                              strlen(names[i]), QCOW2_MAX_NAME);
    return 0;
}

static int check_target(const struct imgtk_create *args, const struct qcow2_create_options *options,
                        struct imgtk_error *err)
{
    bool preallocated = options->preallocation != QCOW2_PREALLOCATION_OFF;
    if (preallocated && (args->flags & IMGTK_CREATE_COMPRESS))
        return imgtk_fail(err, IMGTK_EINVAL, "Compression and preallocation not supported at the same time");
    if (preallocated && options->backing_file && !options->geometry.extended_l2)
        return imgtk_fail(err, IMGTK_EINVAL, "Backing file and preallocation can only be used at the same time if "
                                             "extended_l2 is on");
    if (options->data_file && (args->flags & IMGTK_CREATE_COMPRESS))
        return imgtk_fail(err, IMGTK_EINVAL, "Compression not supported with an external data file");
    if (preallocated && (args->flags & IMGTK_CREATE_STREAM))
        return imgtk_fail(err, IMGTK_EINVAL, "preallocation needs a file: nothing can be reserved in a pipe");
    if (options->data_file && (args->flags & IMGTK_CREATE_STREAM))
        return imgtk_fail(err, IMGTK_EINVAL, "an external data file cannot be made beside a pipe");
    return 0;
}

/* Subclusters are found in the data, and preallocating writes over what is there: place() alone brings back neither. */
static int check_resume(const struct imgtk_create *args, const struct qcow2_create_options *options,
                        struct imgtk_error *err)
{
    if (!(args->flags & IMGTK_CREATE_RESUME))
        return 0;
    if (options->preallocation != QCOW2_PREALLOCATION_OFF)
        return imgtk_fail(err, IMGTK_EINVAL, "a conversion with preallocation cannot be resumed");
    if (options->geometry.extended_l2)
        return imgtk_fail(err, IMGTK_EINVAL, "a conversion with extended_l2 cannot be resumed");
    return 0;
}

static int check_level(const struct imgtk_create *args, const struct qcow2_create_options *options,
                       struct imgtk_error *err)
{
    if (!imgtk_opts_given(args->opts, "compression_level"))
        return 0;
    bool zstd = options->compression_type == QCOW2_COMPRESSION_ZSTD;
    struct imgtk_codec_levels levels = imgtk_codec_levels(zstd ? IMGTK_CODEC_ZSTD : IMGTK_CODEC_DEFLATE);
    uint64_t level = imgtk_opts_number(args->opts, "compression_level");
    if (level < levels.min || level > levels.max)
        return imgtk_fail(err, IMGTK_EINVAL, "compression_level is %" PRIu64 ", but %s has levels from %u to %u", level,
                          zstd ? "zstd" : "zlib", levels.min, levels.max);
    return 0;
}

/* The size is rounded to whole sectors, since readers that count in sectors would lose the last bytes. */
static int read_size(const struct imgtk_create *args, struct qcow2_create_options *out, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &out->geometry;
    unsigned shift = geometry->cluster_bits + geometry->l2_bits;
    uint64_t max_entries = QCOW2_MAX_L1_BYTES / sizeof(uint64_t);
    const uint64_t limit = QCOW2_MAX_SIZE;
    uint64_t max = max_entries > limit >> shift ? limit : max_entries << shift;
    if (args->size > imgtk_round_down(max, QCOW2_COMPRESSED_SECTOR))
        return imgtk_fail(err, IMGTK_ELIMIT,
                          "The image size is too large for file format 'qcow2' (try using a larger cluster size): "
                          "%" PRIu64 " bytes, but clusters of %" PRIu64 " bytes reach %" PRIu64,
                          args->size, geometry->cluster_size, max);
    out->size = imgtk_round_up(args->size, QCOW2_COMPRESSED_SECTOR);
    return 0;
}

static void read_values(const struct imgtk_opts *opts, struct qcow2_create_options *out)
{
    const char *compat = imgtk_opts_text(opts, "compat");
    out->version = strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0 ? 2 : 3;
    out->lazy_refcounts = imgtk_opts_bool(opts, "lazy_refcounts");
    out->compression_type = strcmp(imgtk_opts_text(opts, "compression_type"), "zstd") == 0 ? QCOW2_COMPRESSION_ZSTD
                                                                                           : QCOW2_COMPRESSION_ZLIB;
    if (imgtk_opts_given(opts, "compression_level"))
        out->compression_level = (unsigned)imgtk_opts_number(opts, "compression_level");
    out->backing_file = imgtk_opts_text(opts, "backing_file");
    out->backing_fmt = imgtk_opts_text(opts, "backing_fmt");
    out->data_file = imgtk_opts_text(opts, "data_file");
    out->data_file_raw = imgtk_opts_bool(opts, "data_file_raw");
    const char *preallocation = imgtk_opts_text(opts, "preallocation");
    for (unsigned i = 0; preallocation_choices[i]; i++)
        if (strcmp(preallocation, preallocation_choices[i]) == 0)
            out->preallocation = (enum qcow2_preallocation)i;
}

int qcow2_options_read(const struct imgtk_create *args, struct qcow2_create_options *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    read_values(args->opts, out);
    int status = read_geometry(args->opts, out, err);
    if (!status)
        status = check_version(out, err);
    if (!status)
        status = check_names(out, err);
    if (!status)
        status = check_target(args, out, err);
    if (!status)
        status = check_resume(args, out, err);
    if (!status)
        status = check_level(args, out, err);
    if (!status)
        status = read_size(args, out, err);
    /* A raw data file shows every guest byte at its own offset, whether the tables say so or not: they must. */
    if (!status && out->data_file_raw && out->preallocation == QCOW2_PREALLOCATION_OFF)
        out->preallocation = QCOW2_PREALLOCATION_METADATA;
    return status;
}
