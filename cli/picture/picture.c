#include "picture.h"

#include <imgtk/bytes.h>
#include <stdlib.h>
#include <string.h>

#include "../output.h"

#define NAME_LIMIT 80 /* characters of a file name or a message in a picture */

/* ---- Collecting ----------------------------------------------------------- */

/* The raw format cannot record zeroes: where it has no data, its file has a hole. */
static bool is_raw(const struct picture *picture, size_t depth)
{
    return strcmp(imgtk_image_layer(picture->map->image, depth)->driver->name, "raw") == 0;
}

static enum cell_kind kind_of(const struct picture *picture, const struct imgtk_chain_extent *row)
{
    uint32_t flags = row->extent.flags;
    if (row->extent.kind == IMGTK_EXTENT_DATA)
        return flags & IMGTK_EXTENT_COMPRESSED ? CELL_COMPRESSED : CELL_DATA;
    if (!row->present || flags & IMGTK_EXTENT_STORAGE_HOLE || is_raw(picture, row->depth))
        return CELL_HOLE;
    return CELL_ZERO;
}

static int add_row(void *context, const struct imgtk_chain_extent *row)
{
    struct picture *picture = context;
    enum cell_kind kind = kind_of(picture, row);
    cells_add(&picture->cells, row->start, row->extent.length, kind, row->depth);
    if (picture->detail.cells)
        cells_add(&picture->detail, row->start, row->extent.length, kind, row->depth);
    return 0;
}

static int read_image(void *context, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    return imgtk_image_read(context, buf, length, offset, err);
}

/* An image whose content cannot be read has a map all the same. */
static void collect_partitions(struct picture *picture)
{
    struct partition_disk disk = { .size = imgtk_image_size(picture->map->image), .read = read_image,
                                   .context = picture->map->image };
    partitions_read(&disk, &picture->partitions, &picture->fault);
}

static int collect_cells(struct picture *picture, const struct picture_form *form, FILE *to, struct imgtk_error *err)
{
    struct imgtk_map job = *picture->map;
    int status = cells_init(&picture->cells, job.start, job.length, form->cell_limit(to), err);
    if (status == 0 && form->detail_limit > 0)
        status = cells_init(&picture->detail, job.start, job.length, form->detail_limit, err);
    job.row = add_row;
    job.context = picture;
    if (status == 0 && job.length > 0)
        status = imgtk_map(&job, err);
    if (status)
        return status;
    cells_finish(&picture->cells);
    if (picture->detail.cells)
        cells_finish(&picture->detail);
    return 0;
}

int picture_draw(const struct imgtk_map *map, const struct picture_form *form, FILE *to, struct imgtk_error *err)
{
    struct imgtk_map clipped = *map;
    uint64_t size = imgtk_image_size(map->image);
    clipped.start = imgtk_min_u64(map->start, size);
    clipped.length = imgtk_min_u64(map->length, size - clipped.start);
    struct picture *picture = calloc(1, sizeof *picture);
    if (!picture)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    picture->map = &clipped;
    int status = collect_cells(picture, form, to, err);
    if (status == 0) {
        collect_partitions(picture);
        form->draw(picture, to);
    }
    cells_free(&picture->cells);
    cells_free(&picture->detail);
    free(picture);
    return status;
}

/* ---- For the forms -------------------------------------------------------- */

const struct series *picture_kinds(const struct picture *picture)
{
    return picture->map->relative_to ? &series_differences : &series_kinds;
}

bool picture_has_layers(const struct picture *picture)
{
    return imgtk_image_depth(picture->map->image) > 1;
}

const char *picture_layer_name(const struct picture *picture, size_t depth)
{
    return imgtk_storage_name(imgtk_image_layer(picture->map->image, depth)->file);
}

static const char *file_name(const struct imgtk_image *image)
{
    const char *name = imgtk_storage_name(imgtk_image_layer(image, 0)->file);
    const char *slash = strrchr(name, '/');
    return slash && slash[1] ? slash + 1 : name;
}

const char *picture_title(const struct picture *picture)
{
    return file_name(picture->map->image);
}

static void put_range(const struct picture *picture, FILE *to)
{
    char text[CLI_SIZE_TEXT], offset[AXIS_TEXT];
    cli_format_size(imgtk_image_size(picture->map->image), text);
    fputs(text, to);
    if (picture->cells.length == imgtk_image_size(picture->map->image))
        return;
    cli_format_size(picture->cells.length, text);
    layout_format_offset(picture->cells.start, offset);
    fprintf(to, ", of which %s from %s on", text, offset);
}

static void put_scheme(const struct picture *picture, FILE *to,
                       size_t (*put)(FILE *to, const char *text, size_t limit))
{
    static const char *const schemes[] = { "no partition table", "MBR", "GPT" };
    const struct partition_table *table = &picture->partitions;
    if (picture->fault.status) {
        fputs("partitions unknown: ", to);
        put(to, picture->fault.message, NAME_LIMIT);
        return;
    }
    fputs(schemes[table->scheme], to);
    if (table->scheme == PARTITION_SCHEME_NONE)
        return;
    fprintf(to, "%s with %zu partition%s%s", table->from_backup ? " (its second copy; the first is damaged)" : "",
            table->count, table->count == 1 ? "" : "s", table->truncated ? " and more" : "");
}

void picture_put_summary(const struct picture *picture, FILE *to,
                         size_t (*put)(FILE *to, const char *text, size_t limit))
{
    const struct imgtk_image *image = picture->map->image;
    put_range(picture, to);
    fprintf(to, ", %s", imgtk_image_layer(image, 0)->driver->name);
    if (picture_has_layers(picture))
        fprintf(to, ", %zu layers", imgtk_image_depth(image));
    fputs("; ", to);
    if (picture->map->relative_to) {
        fputs("differences from ", to);
        put(to, file_name(picture->map->relative_to), NAME_LIMIT);
        fputs("; ", to);
    }
    put_scheme(picture, to, put);
}

size_t picture_put_partition(const struct partition *partition, FILE *to, size_t limit,
                             size_t (*put)(FILE *to, const char *text, size_t limit))
{
    char text[PARTITION_NAME_SIZE + 64];
    const char *space = *partition->type ? " " : "";
    if (*partition->name)
        snprintf(text, sizeof text, "%u%s%s \"%s\"", partition->number, space, partition->type, partition->name);
    else
        snprintf(text, sizeof text, "%u%s%s", partition->number, space, partition->type);
    return put(to, text, limit);
}

bool picture_clip(const struct picture *picture, const struct partition *partition, uint64_t *from, uint64_t *to)
{
    uint64_t start = picture->cells.start, end = start + picture->cells.length;
    uint64_t part_end = partition->start + partition->length;
    if (part_end <= start || partition->start >= end)
        return false;
    *from = partition->start < start ? 0 : partition->start - start;
    *to = imgtk_min_u64(part_end, end) - start;
    return true;
}
