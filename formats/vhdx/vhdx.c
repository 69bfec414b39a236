/* The VHDX driver: opening an image, and the ops table. */
#include "vhdx.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"

#define TABLE_CACHE_SIZE (4 * VHDX_MIB)

static enum imgtk_probe_result vhdx_probe(const struct imgtk_probe *probe)
{
    return probe->head_length >= 8 && memcmp(probe->head, VHDX_FILE_SIGNATURE, 8) == 0 ? IMGTK_PROBE_YES
                                                                                       : IMGTK_PROBE_NO;
}

static int read_identifier(struct vhdx_image *image, struct imgtk_error *err)
{
    uint8_t bytes[VHDX_FILE_ID_SIZE];
    int status = imgtk_storage_size(image->file, &image->stored_size, err);
    if (!status)
        status = imgtk_storage_pread(image->file, bytes, sizeof(bytes), 0, err);
    if (status)
        return status;
    if (memcmp(bytes, VHDX_FILE_SIGNATURE, 8) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file does not begin with \"vhdxfile\"");
    if (image->stored_size > VHDX_MAX_FILE_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "a file of %" PRIu64 " bytes, at most 128 TiB are supported",
                          image->stored_size);
    image->creator = vhdx_utf16_to_utf8(bytes + VHDX_FILE_CREATOR, VHDX_FILE_CREATOR_SIZE);
    if (!image->creator)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the creator's name");
    image->file_size = image->stored_size;
    return 0;
}

static int check_log_place(struct vhdx_image *image, struct imgtk_error *err)
{
    struct vhdx_header *header = &image->header.header;
    if (header->log_length == 0 && vhdx_guid_is_zero(&header->log_guid)) {
        header->log_offset = 0; /* no log: its offset says nothing, and is in nobody's way */
        return 0;
    }
    if (header->log_offset < VHDX_SECTION_SIZE || header->log_offset % VHDX_MIB || header->log_length % VHDX_MIB ||
        header->log_length == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "log at %" PRIu64 " of %" PRIu64
                          " bytes is not in whole MiB above 1 MiB", header->log_offset, header->log_length);
    if (!imgtk_range_fits(header->log_offset, header->log_length, image->stored_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "log at %" PRIu64 " of %" PRIu64 " bytes ends beyond the file's %"
                          PRIu64, header->log_offset, header->log_length, image->stored_size);
    return 0;
}

static int read_headers(struct vhdx_image *image, struct imgtk_error *err)
{
    uint8_t first[VHDX_HEADER_SIZE], second[VHDX_HEADER_SIZE];
    int status = imgtk_storage_pread(image->file, first, sizeof(first), VHDX_HEADER_1_OFFSET, err);
    if (!status)
        status = imgtk_storage_pread(image->file, second, sizeof(second), VHDX_HEADER_2_OFFSET, err);
    if (!status)
        status = vhdx_header_choose(first, second, &image->header, err);
    return status ? status : check_log_place(image, err);
}

static int replay_log(struct vhdx_image *image, struct imgtk_error *err)
{
    struct vhdx_replay replay;
    if (vhdx_guid_is_zero(&image->header.header.log_guid))
        return 0;
    int status = vhdx_log_replay(image->file, &image->header.header, image->stored_size, &replay, err);
    if (status)
        return status;
    image->overlay = replay.overlay;
    image->file_size = replay.file_size;
    image->replayed = true;
    return 0;
}

/* `first` and `second` are the two copies; only one whose checksum is wrong gives way to the other. */
static int choose_regions(struct vhdx_image *image, const uint8_t *first, const uint8_t *second,
                          struct imgtk_error *err)
{
    const struct vhdx_header *header = &image->header.header;
    struct vhdx_region_limits limits = { image->file_size, { header->log_offset, header->log_length } };
    bool second_good = vhdx_regions_verify(second, NULL) == 0;
    bool use_second = second_good && vhdx_regions_verify(first, NULL) != 0;
    int status = vhdx_regions_parse(use_second ? second : first, &limits, &image->regions, err);
    image->regions.damaged = use_second ? 1 : second_good ? 0 : 2;
    return status;
}

static int read_regions(struct vhdx_image *image, struct imgtk_error *err)
{
    uint8_t *tables = malloc(2 * VHDX_REGION_TABLE_SIZE);
    if (!tables)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the region tables");
    int status = vhdx_file_read(image, tables, 2 * VHDX_REGION_TABLE_SIZE, VHDX_REGION_1_OFFSET, err);
    if (!status)
        status = choose_regions(image, tables, tables + VHDX_REGION_TABLE_SIZE, err);
    free(tables);
    return status;
}

static int read_item(struct vhdx_image *image, const struct vhdx_item *item, uint8_t *out, struct imgtk_error *err)
{
    return vhdx_file_read(image, out, item->length, image->regions.metadata.offset + item->offset, err);
}

/* The parser of the table has made sure of the items' lengths. */
static int read_items(struct vhdx_image *image, const struct vhdx_items *items, struct imgtk_error *err)
{
    struct vhdx_metadata *metadata = &image->metadata;
    uint8_t parameters[VHDX_FILE_PARAMETERS_SIZE], size[8], logical[4], physical[4];
    int status = read_item(image, &items->file_parameters, parameters, err);
    if (!status)
        status = read_item(image, &items->disk_size, size, err);
    if (!status)
        status = read_item(image, &items->disk_id, metadata->disk_id.bytes, err);
    if (!status)
        status = read_item(image, &items->logical_sector, logical, err);
    if (!status)
        status = read_item(image, &items->physical_sector, physical, err);
    if (status)
        return status;
    metadata->block_size = imgtk_le32(parameters);
    metadata->leave_allocated = imgtk_le32(parameters + 4) & VHDX_FILE_LEAVE_ALLOCATED;
    metadata->has_parent = imgtk_le32(parameters + 4) & VHDX_FILE_HAS_PARENT;
    metadata->disk_size = imgtk_le64(size);
    metadata->logical_sector = imgtk_le32(logical);
    metadata->physical_sector = imgtk_le32(physical);
    metadata->parent_locator = items->parent_locator;
    return vhdx_metadata_validate(metadata, err);
}

static int read_metadata(struct vhdx_image *image, struct imgtk_error *err)
{
    struct vhdx_items items;
    uint8_t *table = malloc(VHDX_METADATA_TABLE_SIZE);
    if (!table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the metadata table");
    int status = vhdx_file_read(image, table, VHDX_METADATA_TABLE_SIZE, image->regions.metadata.offset, err);
    if (!status)
        status = vhdx_metadata_parse_table(table, image->regions.metadata.length, &items, err);
    free(table);
    return status ? status : read_items(image, &items, err);
}

static int read_parent(struct vhdx_image *image, struct imgtk_error *err)
{
    const struct vhdx_item *item = &image->metadata.parent_locator;
    if (!image->metadata.has_parent)
        return 0;
    uint8_t *locator = malloc(item->length);
    if (!locator)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the parent locator");
    int status = read_item(image, item, locator, err);
    if (!status)
        status = vhdx_parent_parse(locator, item->length, &image->parent, err);
    free(locator);
    return status;
}

static int load_slice(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    return vhdx_file_read(context, table, VHDX_SLICE, key, err);
}

/* Sizes are validated: nothing here can wrap (at most 2^26 blocks, and a chunk ratio of at least 16). */
static int measure_bat(struct vhdx_image *image, struct imgtk_error *err)
{
    const struct vhdx_metadata *metadata = &image->metadata;
    image->chunk_ratio = VHDX_CHUNK_SECTORS * metadata->logical_sector / metadata->block_size;
    image->block_count = imgtk_div_round_up(metadata->disk_size, metadata->block_size);
    uint64_t chunks = imgtk_div_round_up(image->block_count, image->chunk_ratio);
    if (metadata->has_parent)
        image->bat_entries = chunks * (image->chunk_ratio + 1);
    else
        image->bat_entries = image->block_count + (chunks ? chunks - 1 : 0);
    if (image->bat_entries > image->regions.bat.length / VHDX_BAT_ENTRY_SIZE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block allocation table of %" PRIu64 " bytes cannot hold the %" PRIu64
                          " entries of the disk", image->regions.bat.length, image->bat_entries);
    return imgtk_cache_new(VHDX_SLICE, TABLE_CACHE_SIZE, load_slice, image, &image->tables, err);
}

static int stop_at_finding(void *context, const struct imgtk_error *fault)
{
    return imgtk_fail(context, fault->status, "%s", fault->message);
}

/* Data that two blocks share, or that lie beyond the file, are refused before a job begins, not in its middle. */
static int check_blocks(struct vhdx_image *image, uint32_t flags, struct imgtk_error *err)
{
    struct vhdx_scan scan = { .finding = stop_at_finding, .context = err };
    if (flags & (IMGTK_OPEN_NO_REFERENCES | IMGTK_OPEN_CHECK))
        return 0;
    return vhdx_scan(image, &scan, err);
}

static void vhdx_close(void *handle)
{
    struct vhdx_image *image = handle;
    imgtk_cache_free(image->tables);
    vhdx_overlay_free(&image->overlay);
    vhdx_parent_free(&image->parent);
    free(image->creator);
    free(image);
}

static int open_steps(struct vhdx_image *image, const struct imgtk_open *args, struct imgtk_error *err)
{
    int status = read_identifier(image, err);
    if (!status)
        status = read_headers(image, err);
    if (!status)
        status = replay_log(image, err);
    if (!status)
        status = read_regions(image, err);
    if (!status)
        status = read_metadata(image, err);
    if (!status)
        status = read_parent(image, err);
    if (!status)
        status = measure_bat(image, err);
    return status ? status : check_blocks(image, args->flags, err);
}

static int vhdx_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    if (args->snapshot)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VHDX has no internal snapshots");
    struct vhdx_image *image = calloc(1, sizeof(*image));
    if (!image)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an image");
    image->file = args->file;
    int status = open_steps(image, args, err);
    if (status)
        vhdx_close(image);
    else
        *handle = image;
    return status;
}

static uint64_t vhdx_size(void *handle)
{
    const struct vhdx_image *image = handle;
    return image->metadata.disk_size;
}

static int vhdx_identity(void *handle, char out[64], struct imgtk_error *err)
{
    (void)err;
    const struct vhdx_image *image = handle;
    vhdx_guid_format(&image->header.header.data_write, out);
    return 0;
}

static const char *const suffixes[] = { "vhdx", NULL };

static const struct imgtk_driver vhdx_driver = {
    .struct_size = sizeof(struct imgtk_driver),
    .name = "vhdx",
    .description = "Hyper-V virtual hard disk, version 2",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_BYTES_MAY_CHANGE,
    .suffixes = suffixes,
    .create_opts = vhdx_create_opts,
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .size = vhdx_size,
    .read = vhdx_read,
    .extent = vhdx_extent,
    .backing = vhdx_backing,
    .identity = vhdx_identity,
    .info = vhdx_info,
    .check = vhdx_check,
    .create = vhdx_create,
    .write = vhdx_write,
    .zero = vhdx_zero,
    .finish = vhdx_finish,
    .writer_close = vhdx_writer_close,
    .measure = vhdx_measure,
    .place = vhdx_place,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &vhdx_driver;
}
