/* How large an image would become. */
#include <limits.h>
#include <string.h>

#include "writer.h"

#define DESCRIPTOR_BYTES 1024u /* more than a descriptor without extent lines has, unless its texts are long */
#define LINE_BYTES 64u         /* of an extent line, but for the image's name */

/* Grains that the plan touches, and grain tables that cover one of them. */
struct count { uint64_t grains, tables; };

static int count_planned(struct imgtk_create *args, struct count *out, struct imgtk_error *err)
{
    uint64_t offset = 0, last_table = UINT64_MAX;
    memset(out, 0, sizeof(*out));
    while (args->plan && offset < args->size) {
        uint64_t start = 0, length = 0;
        int status = imgtk_plan_next(args->plan, VMDK_GRAIN_SIZE, offset, &start, &length, err);
        if (status)
            return status;
        if (length == 0)
            break;
        uint64_t first = start / VMDK_GRAIN_SIZE, end = imgtk_div_round_up(start + length, VMDK_GRAIN_SIZE);
        uint64_t first_table = first / VMDK_GTES, final_table = (end - 1) / VMDK_GTES;
        out->grains += end - first;
        out->tables += final_table - first_table + (first_table != last_table);
        last_table = final_table;
        offset = start + length;
    }
    return 0;
}

static uint64_t text_bytes(const struct imgtk_create *args, const struct vmdk_options *options, uint64_t lines)
{
    const char *image = args->refs ? imgtk_references_image_name(args->refs) : NULL;
    uint64_t names = (options->parent_name ? strlen(options->parent_name) : 0) + strlen(options->tools_version) +
                     strlen(options->hardware_version);
    return DESCRIPTOR_BYTES + names + lines * (LINE_BYTES + (image ? strlen(image) : 0));
}

/* What differs from a parent is not known before it is compared. */
static bool parent_is_compared(const struct imgtk_create *args, const struct vmdk_options *options)
{
    return options->parent_name && args->plan;
}

/* A descriptor that fits into the room that is reserved for it takes all of that room, whatever the file will be called. */
static bool has_room(const struct imgtk_create *args, const struct vmdk_options *options)
{
    return text_bytes(args, options, 1) + NAME_MAX <= VMDK_DESCRIPTOR_ROOM;
}

static int measure_sparse(const struct imgtk_create *args, const struct vmdk_options *options, uint64_t size,
                          const struct count *planned, struct imgtk_measure *out, struct imgtk_error *err)
{
    bool split = options->subformat == VMDK_SPLIT_SPARSE;
    uint64_t step = split ? VMDK_SPLIT_SIZE : size, metadata = 0;
    for (uint64_t start = 0; start < size; start += step) {
        struct vmdk_tables tables;
        uint64_t text = split ? 0 : text_bytes(args, options, 1);
        int status = vmdk_tables_place(imgtk_min_u64(step, size - start), (size_t)text, &tables, err);
        if (status)
            return status;
        metadata += tables.data_offset;
    }
    if (split)
        metadata += text_bytes(args, options, imgtk_div_round_up(size, step));
    out->required = metadata + planned->grains * VMDK_GRAIN_SIZE;
    out->fully_allocated = metadata + imgtk_round_up(size, VMDK_GRAIN_SIZE);
    out->file_size = out->required;
    out->file_size_known = !split && !parent_is_compared(args, options) && has_room(args, options);
    return 0;
}

static void measure_stream(const struct imgtk_create *args, const struct vmdk_options *options, uint64_t size,
                           const struct count *planned, struct imgtk_measure *out)
{
    uint64_t tables = imgtk_div_round_up(size, VMDK_GT_COVERAGE), grains = imgtk_div_round_up(size, VMDK_GRAIN_SIZE);
    uint64_t front = imgtk_round_up(VMDK_SECTOR + text_bytes(args, options, 1), VMDK_GRAIN_SIZE);
    uint64_t back = imgtk_round_up(tables * 4, VMDK_SECTOR) + 4 * VMDK_SECTOR;
    uint64_t table = VMDK_SECTOR + VMDK_GT_BYTES;
    uint64_t grain = VMDK_GRAIN_SIZE + VMDK_SECTOR; /* stored, with its marker */
    out->required = front + back + planned->tables * table + planned->grains * grain;
    out->fully_allocated = front + back + tables * table + grains * grain;
}

int vmdk_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    struct vmdk_options options;
    struct count planned = { 0, 0 };
    memset(out, 0, sizeof(*out));
    int status = vmdk_options_read(args, &options, err);
    if (status)
        return status;
    out->upper_bound = true; /* by the room for the descriptor's texts, and for what does not shrink */
    if (args->size == 0)
        return imgtk_fail(err, IMGTK_EINVAL, "a vmdk image cannot have a size of 0");
    if (args->size > VMDK_MAX_SIZE - VMDK_GRAIN_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "the size of %llu bytes is above the limit of %llu",
                          (unsigned long long)args->size, (unsigned long long)(VMDK_MAX_SIZE - VMDK_GRAIN_SIZE));
    uint64_t size = imgtk_round_up(args->size, VMDK_SECTOR);
    if (options.subformat == VMDK_MONOLITHIC_FLAT || options.subformat == VMDK_SPLIT_FLAT) {
        uint64_t lines = options.subformat == VMDK_SPLIT_FLAT ? imgtk_div_round_up(size, VMDK_SPLIT_SIZE) : 1;
        out->required = out->fully_allocated = size + text_bytes(args, &options, lines);
        return 0;
    }
    status = count_planned(args, &planned, err);
    if (status)
        return status;
    if (options.subformat == VMDK_STREAM) {
        measure_stream(args, &options, size, &planned, out);
        return 0;
    }
    return measure_sparse(args, &options, size, &planned, out, err);
}
