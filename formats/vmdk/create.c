/* Creating: which files an image consists of, its descriptor, and the end of writing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer.h"

static bool is_flat(const struct vmdk_writer *writer)
{
    return writer->subformat == VMDK_MONOLITHIC_FLAT || writer->subformat == VMDK_SPLIT_FLAT;
}

static bool is_split(const struct vmdk_writer *writer)
{
    return writer->subformat == VMDK_SPLIT_SPARSE || writer->subformat == VMDK_SPLIT_FLAT;
}

/* Whether the descriptor lies in the file of the image's first extent. */
static bool is_embedded(const struct vmdk_writer *writer)
{
    return writer->subformat == VMDK_MONOLITHIC_SPARSE || writer->subformat == VMDK_STREAM;
}

/* ---- Names and extent lines --------------------------------------------------- */

static bool name_is_quotable(const char *name)
{
    for (const char *c = name; *c; c++)
        if (*c == '"' || (unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return true;
}

/* The image's own name; readers ignore it where the descriptor is embedded, so there any name will do. */
static int image_name(const struct vmdk_writer *writer, const struct imgtk_create *args, const char **out,
                      struct imgtk_error *err)
{
    const char *name = imgtk_references_image_name(args->refs);
    bool usable = name && *name && name_is_quotable(name);
    if (!usable && !is_embedded(writer))
        return imgtk_fail(err, IMGTK_EINVAL, "the names of the extents follow from the image's, which must be a file's "
                          "without quotes or control characters");
    *out = usable && strcmp(name, "-") != 0 ? name : "disk.vmdk";
    return 0;
}

/* "disk.vmdk": "disk-flat.vmdk", "disk-s001.vmdk", "disk-f001.vmdk". The caller frees it; NULL: no memory. */
static char *part_name(const struct vmdk_writer *writer, const char *image, size_t number)
{
    const char *dot = strrchr(image, '.');
    int stem = dot ? (int)(dot - image) : (int)strlen(image);
    char *name = NULL;
    int length = 0;
    if (is_embedded(writer))
        length = asprintf(&name, "%s", image);
    else if (!is_split(writer))
        length = asprintf(&name, "%.*s-flat%s", stem, image, dot ? dot : "");
    else
        length = asprintf(&name, "%.*s-%c%03zu%s", stem, image, is_flat(writer) ? 'f' : 's', number + 1,
                          dot ? dot : "");
    return length < 0 ? NULL : name;
}

static int append_line(const struct vmdk_writer *writer, FILE *lines, const char *name, uint64_t length)
{
    /* A stream is for transport: nobody writes into it. */
    return fprintf(lines, "%s %llu %s \"%s\"%s\n", writer->subformat == VMDK_STREAM ? "RDONLY" : "RW",
                   (unsigned long long)(length / VMDK_SECTOR), is_flat(writer) ? "FLAT" : "SPARSE", name,
                   is_flat(writer) ? " 0" : "");
}

/* One part per file: their places on the disk, their files, their lines of the descriptor. */
static int make_parts(struct vmdk_writer *writer, const struct imgtk_create *args, FILE *lines,
                      struct imgtk_error *err)
{
    const char *image = NULL;
    int status = image_name(writer, args, &image, err);
    uint64_t step = is_split(writer) ? VMDK_SPLIT_SIZE : writer->size;
    for (size_t i = 0; !status && i < writer->part_count; i++) {
        struct vmdk_part *part = &writer->parts[i];
        part->start = i * step;
        part->length = imgtk_min_u64(step, writer->size - part->start);
        part->file = writer->file;
        char *name = part_name(writer, image, i);
        if (!name || append_line(writer, lines, name, part->length) < 0)
            status = imgtk_fail(err, IMGTK_ENOMEM, "no memory for the descriptor");
        if (!status && !is_embedded(writer))
            status = imgtk_reference_create(args->refs, name, &part->file, err);
        free(name);
    }
    return status;
}

static int make_lines(struct vmdk_writer *writer, const struct imgtk_create *args, char **text,
                      struct imgtk_error *err)
{
    size_t length = 0;
    FILE *lines = open_memstream(text, &length);
    if (!lines)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for the descriptor");
    int status = make_parts(writer, args, lines, err);
    if (fclose(lines) && !status)
        status = imgtk_fail(err, IMGTK_ENOMEM, "no memory for the descriptor");
    return status;
}

static int make_descriptor(struct vmdk_writer *writer, const struct imgtk_create *args,
                           const struct vmdk_options *options, struct imgtk_error *err)
{
    char *lines = NULL;
    int status = make_lines(writer, args, &lines, err);
    if (!status) {
        struct vmdk_descriptor_source source = {
            .cid = options->cid, .parent_cid = options->parent_cid, .create_type = options->subformat_name,
            .parent_name = options->parent_name, .adapter = options->adapter,
            .hardware_version = options->hardware_version, .tools_version = options->tools_version,
            .size = writer->size, .lines = lines };
        writer->descriptor = vmdk_descriptor_format(&source);
        if (!writer->descriptor)
            status = imgtk_fail(err, IMGTK_ENOMEM, "no memory for the descriptor");
    }
    free(lines);
    return status;
}

/* ---- Preparing the files ------------------------------------------------------- */

/* What is not written must read as zeroes; a new file does already. */
static int clear(struct imgtk_storage *file, uint64_t length, struct imgtk_error *err)
{
    uint32_t flags = imgtk_storage_flags(file);
    int status = flags & IMGTK_STORAGE_FIXED_SIZE ? 0 : imgtk_storage_truncate(file, length, err);
    return status || (flags & IMGTK_STORAGE_READS_ZERO) ? status : imgtk_storage_zero(file, 0, length, 0, err);
}

static int prepare_part(struct vmdk_writer *writer, struct vmdk_part *part, struct imgtk_error *err)
{
    if (is_flat(writer))
        return clear(part->file, part->length, err);
    int status = vmdk_tables_place(part->length, is_embedded(writer) ? strlen(writer->descriptor) : 0, &part->tables,
                                   err);
    part->next = part->tables.data_offset;
    if (writer->part_count == 1) /* parts that stay behind would keep what they have taken ahead until the end */
        imgtk_storage_will_append(part->file);
    return status ? status : clear(part->file, part->next, err);
}

static int prepare(struct vmdk_writer *writer, const struct vmdk_options *options, struct imgtk_error *err)
{
    if (writer->subformat == VMDK_STREAM)
        return vmdk_stream_create(writer, options->level, err);
    for (size_t i = 0; i < writer->part_count; i++) {
        int status = prepare_part(writer, &writer->parts[i], err);
        if (status)
            return status;
    }
    return 0;
}

/* Before anything is made beside it. */
static int check_target(const struct vmdk_writer *writer, const struct vmdk_options *options, struct imgtk_error *err)
{
    if (is_embedded(writer) || !(imgtk_storage_flags(writer->file) & IMGTK_STORAGE_FIXED_SIZE))
        return 0;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the descriptor of a %s image is a file of its own, so it cannot be "
                      "a device", options->subformat_name);
}

/* The specification wants whole grains in a stream; elsewhere a disk has whole sectors. */
static int choose_size(struct vmdk_writer *writer, struct imgtk_create *args, struct imgtk_error *err)
{
    uint64_t unit = writer->subformat == VMDK_STREAM ? VMDK_GRAIN_SIZE : VMDK_SECTOR;
    if (args->size == 0)
        return imgtk_fail(err, IMGTK_EINVAL, "a vmdk image cannot have a size of 0");
    if (args->size > VMDK_MAX_SIZE - unit)
        return imgtk_fail(err, IMGTK_ELIMIT, "the size of %llu bytes is above the limit of %llu",
                          (unsigned long long)args->size, (unsigned long long)(VMDK_MAX_SIZE - unit));
    writer->size = imgtk_round_up(args->size, unit);
    if (writer->size != args->size && args->note) {
        char note[128];
        snprintf(note, sizeof(note), "vmdk: the size is rounded up from %llu to %llu bytes",
                 (unsigned long long)args->size, (unsigned long long)writer->size);
        args->note(args->note_context, note);
    }
    return 0;
}

static int choose_parts(struct vmdk_writer *writer, struct imgtk_error *err)
{
    uint64_t count = is_split(writer) ? imgtk_div_round_up(writer->size, VMDK_SPLIT_SIZE) : 1;
    if (count > VMDK_MAX_EXTENTS)
        return imgtk_fail(err, IMGTK_ELIMIT, "%llu extents of 2 GiB are above the limit of %u",
                          (unsigned long long)count, VMDK_MAX_EXTENTS);
    writer->parts = calloc(count, sizeof(*writer->parts));
    writer->part_count = count;
    return writer->parts ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "no memory for %llu extents", (unsigned long long)count);
}

int vmdk_create(struct imgtk_create *args, void **out, struct imgtk_error *err)
{
    struct vmdk_options options;
    int status = vmdk_options_read(args, &options, err);
    if (!status)
        status = vmdk_options_identify(args, &options, err);
    if (status)
        return status;
    struct vmdk_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for a writer");
    writer->file = args->file;
    writer->subformat = options.subformat;
    writer->zeroed_grain = options.zeroed_grain;
    writer->zero_matters = options.parent_name || (args->flags & IMGTK_CREATE_FULL);
    writer->zero_flags = args->flags & IMGTK_CREATE_FULL ? IMGTK_ZERO_ALLOCATE : 0;
    status = check_target(writer, &options, err);
    if (!status)
        status = choose_size(writer, args, err);
    if (!status)
        status = choose_parts(writer, err);
    if (!status)
        status = make_descriptor(writer, args, &options, err);
    if (!status)
        status = prepare(writer, &options, err);
    if (status) {
        vmdk_writer_close(writer);
        return status;
    }
    args->unit = is_flat(writer) ? 4096 : VMDK_GRAIN_SIZE;
    args->compresses = writer->subformat == VMDK_STREAM;
    *out = writer;
    return 0;
}

/* ---- The end -------------------------------------------------------------------- */

static int write_descriptor_file(struct vmdk_writer *writer, struct imgtk_error *err)
{
    size_t length = strlen(writer->descriptor);
    int status = imgtk_storage_truncate(writer->file, length, err);
    return status ? status : imgtk_storage_pwrite(writer->file, writer->descriptor, length, 0, err);
}

int vmdk_finish(void *handle, struct imgtk_error *err)
{
    struct vmdk_writer *writer = handle;
    if (writer->subformat == VMDK_STREAM)
        return vmdk_stream_finish(writer, err);
    int status = vmdk_window_flush(&writer->window, err);
    for (size_t i = 0; !status && !is_flat(writer) && i < writer->part_count; i++)
        status = vmdk_part_finish(writer, &writer->parts[i], is_embedded(writer) ? writer->descriptor : NULL, err);
    return status || is_embedded(writer) ? status : write_descriptor_file(writer, err);
}

void vmdk_writer_close(void *handle)
{
    struct vmdk_writer *writer = handle;
    vmdk_stream_free(writer->stream);
    free(writer->descriptor);
    free(writer->parts);
    free(writer);
}
