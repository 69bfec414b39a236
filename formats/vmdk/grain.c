/* Grain directories and tables: where each grain of a sparse extent lies. */
#include <stdlib.h>
#include <string.h>

#include "vmdk.h"

#define KEY_EXTENT_SHIFT 40 /* an extent has far fewer than 2^40 pieces: VMDK_MAX_GD_ENTRIES * 8 */

static uint32_t entry_bytes(const struct vmdk_sparse *sparse)
{
    return sparse->format == VMDK_SESPARSE ? 8 : 4;
}

static uint64_t table_bytes(const struct vmdk_sparse *sparse)
{
    return (uint64_t)sparse->gtes_per_gt * entry_bytes(sparse);
}

uint32_t vmdk_pieces_per_gt(const struct vmdk_sparse *sparse)
{
    return (sparse->gtes_per_gt + VMDK_PIECE_GRAINS - 1) / VMDK_PIECE_GRAINS;
}

uint64_t vmdk_gt_offset(const struct vmdk_sparse *sparse, uint32_t gd_entry)
{
    if (sparse->format == VMDK_SESPARSE)
        return sparse->tables_offset + (uint64_t)(gd_entry - 1) * table_bytes(sparse);
    return (uint64_t)gd_entry * VMDK_SECTOR;
}

static bool ranges_meet(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

/* Whether a range may hold tables or data: behind the header, within the file, clear of the directories. */
static bool place_is_free(const struct vmdk_extent *extent, uint64_t offset, uint64_t length)
{
    const struct vmdk_sparse *sparse = &extent->sparse;
    uint64_t gd_bytes = sparse->gd_entries * entry_bytes(sparse);
    if (offset < sparse->first_byte || !imgtk_range_fits(offset, length, extent->file_size))
        return false;
    if (sparse->gd_offset && ranges_meet(offset, length, sparse->gd_offset, gd_bytes))
        return false;
    return !sparse->rgd_offset || !ranges_meet(offset, length, sparse->rgd_offset, gd_bytes);
}

/* ---- The directory --------------------------------------------------------- */

static int convert_sesparse_entry(const struct vmdk_sparse *sparse, uint64_t raw, uint32_t *out)
{
    *out = 0;
    if (raw == 0)
        return 0;
    uint64_t number = raw & ~VMDK_SE_GDE_KIND;
    if ((raw & VMDK_SE_GDE_KIND) != VMDK_SE_GDE_ALLOCATED || number >= sparse->tables_length / table_bytes(sparse))
        return IMGTK_ECORRUPT;
    *out = (uint32_t)number + 1;
    return 0;
}

static int convert_entry(const struct vmdk_extent *extent, const uint8_t *raw, uint32_t *out)
{
    const struct vmdk_sparse *sparse = &extent->sparse;
    if (sparse->format == VMDK_SESPARSE)
        return convert_sesparse_entry(sparse, imgtk_le64(raw), out);
    *out = imgtk_le32(raw);
    if (*out != 0 && !place_is_free(extent, vmdk_gt_offset(sparse, *out), table_bytes(sparse)))
        return IMGTK_ECORRUPT;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Sectors (seSparse: numbers) that two tables must be apart. */
static uint32_t table_distance(const struct vmdk_sparse *sparse)
{
    if (sparse->format == VMDK_SESPARSE)
        return 1;
    return (uint32_t)imgtk_div_round_up(table_bytes(sparse), VMDK_SECTOR);
}

/* Entries other than 0 ascend with room for a table between them. */
static bool tables_ascend(const uint32_t *gd, uint64_t count, uint32_t distance, uint32_t *at)
{
    uint64_t free_from = 0;
    for (uint64_t i = 0; i < count; i++) {
        *at = gd[i];
        if (gd[i] == 0)
            continue;
        if (gd[i] < free_from)
            return false;
        free_from = (uint64_t)gd[i] + distance;
    }
    return true;
}

static int check_tables_apart(const struct vmdk_extent *extent, const uint32_t *gd, struct imgtk_error *err)
{
    uint64_t count = extent->sparse.gd_entries;
    uint32_t distance = table_distance(&extent->sparse);
    uint32_t at = 0;
    if (tables_ascend(gd, count, distance, &at))
        return 0;
    uint32_t *sorted = malloc(count * sizeof(*sorted));
    if (!sorted)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for a grain directory of %llu entries",
                          (unsigned long long)count);
    memcpy(sorted, gd, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_entries);
    bool apart = tables_ascend(sorted, count, distance, &at);
    free(sorted);
    if (apart)
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT, "two entries of the grain directory share the grain table at %llu",
                      (unsigned long long)vmdk_gt_offset(&extent->sparse, at));
}

static int read_directory(const struct vmdk_extent *extent, uint64_t offset, uint32_t *gd, struct imgtk_error *err)
{
    const struct vmdk_sparse *sparse = &extent->sparse;
    uint32_t width = entry_bytes(sparse);
    uint8_t raw[8192];
    uint64_t per_read = sizeof(raw) / width;
    for (uint64_t first = 0; first < sparse->gd_entries; first += per_read) {
        uint64_t count = imgtk_min_u64(per_read, sparse->gd_entries - first);
        int status = imgtk_storage_pread(extent->file, raw, count * width, offset + first * width, err);
        if (status)
            return status;
        for (uint64_t i = 0; i < count; i++) {
            if (convert_entry(extent, raw + i * width, &gd[first + i]))
                return imgtk_fail(err, IMGTK_ECORRUPT, "entry %llu of the grain directory is 0x%llx, which is not "
                                  "where a grain table can be in a file of %llu bytes",
                                  (unsigned long long)(first + i),
                                  (unsigned long long)(width == 8 ? imgtk_le64(raw + i * 8) : imgtk_le32(raw + i * 4)),
                                  (unsigned long long)extent->file_size);
        }
    }
    return check_tables_apart(extent, gd, err);
}

int vmdk_gd_read(const struct vmdk_extent *extent, bool redundant, uint32_t **out, struct imgtk_error *err)
{
    uint64_t offset = redundant ? extent->sparse.rgd_offset : extent->sparse.gd_offset;
    if (offset == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the grain directory does not lie within the file");
    *out = malloc(extent->sparse.gd_entries * sizeof(**out));
    if (!*out)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for a grain directory of %llu entries",
                          (unsigned long long)extent->sparse.gd_entries);
    int status = read_directory(extent, offset, *out, err);
    if (status) {
        free(*out);
        *out = NULL;
    }
    return status;
}

static bool has_gap(const struct vmdk_extent *extent)
{
    for (uint64_t i = 0; i < extent->sparse.gd_entries; i++)
        if (extent->gd[i] == 0)
            return true;
    return false;
}

/* Where there are two copies every table exists, so an entry that only the second one has was lost in the first. */
static int fill_gaps(struct vmdk_extent *extent, struct imgtk_error *err)
{
    uint32_t *copy = NULL;
    if (vmdk_gd_read(extent, true, &copy, NULL))
        return 0;
    for (uint64_t i = 0; i < extent->sparse.gd_entries; i++) {
        if (extent->gd[i] != 0 || copy[i] == 0)
            continue;
        extent->gd[i] = copy[i];
        extent->gd_redundant = true;
    }
    free(copy);
    return extent->gd_redundant ? check_tables_apart(extent, extent->gd, err) : 0;
}

int vmdk_gd_load(struct vmdk_image *image, struct vmdk_extent *extent, struct imgtk_error *err)
{
    uint64_t entries = extent->sparse.gd_entries;
    if (entries > VMDK_MAX_GD_ENTRIES - image->gd_entries)
        return imgtk_fail(err, IMGTK_ELIMIT, "the grain directories of all extents have more than %u entries",
                          VMDK_MAX_GD_ENTRIES);
    image->gd_entries += entries;
    int status = vmdk_gd_read(extent, false, &extent->gd, err);
    if (status && extent->sparse.rgd_offset && !vmdk_gd_read(extent, true, &extent->gd, NULL)) {
        extent->gd_redundant = true;
        return 0;
    }
    if (!status && extent->sparse.rgd_offset && has_gap(extent))
        status = fill_gaps(extent, err);
    return status;
}

/* ---- Tables ---------------------------------------------------------------- */

static int convert_sesparse_gte(const struct vmdk_sparse *sparse, uint64_t raw, uint64_t *out)
{
    uint64_t grain = ((raw >> 48) & 0xfff) | ((raw & 0x0000ffffffffffffull) << 12);
    switch (raw & VMDK_SE_GTE_KIND) {
    case 0:
        *out = VMDK_GRAIN_NONE;
        return raw == 0 ? 0 : IMGTK_ECORRUPT;
    case VMDK_SE_GTE_UNMAPPED:
    case VMDK_SE_GTE_ZERO:
        *out = VMDK_GRAIN_ZERO;
        return 0;
    case VMDK_SE_GTE_ALLOCATED:
        if (grain > (VMDK_MAX_SIZE - sparse->grains_offset) / sparse->grain)
            return IMGTK_ECORRUPT;
        *out = sparse->grains_offset + grain * sparse->grain;
        return 0;
    default:
        return IMGTK_ECORRUPT;
    }
}

static int convert_gte(const struct vmdk_extent *extent, const uint8_t *raw, uint64_t grain, uint64_t *out)
{
    const struct vmdk_sparse *sparse = &extent->sparse;
    if (sparse->format == VMDK_SESPARSE) {
        int status = convert_sesparse_gte(sparse, imgtk_le64(raw), out);
        if (status || *out <= VMDK_GRAIN_ZERO)
            return status;
    } else {
        *out = (uint64_t)imgtk_le32(raw) * VMDK_SECTOR;
        if (*out == 0)
            return 0;
        if (sparse->zero_grains && imgtk_le32(raw) == VMDK_GTE_ZERO) {
            *out = VMDK_GRAIN_ZERO;
            return 0;
        }
    }
    uint64_t length = sparse->compressed ? VMDK_M_GRAIN_DATA
                                         : imgtk_min_u64(sparse->grain, sparse->capacity - grain * sparse->grain);
    return place_is_free(extent, *out, length) ? 0 : IMGTK_ECORRUPT;
}

int vmdk_piece_read(const struct vmdk_extent *extent, struct vmdk_piece_id id, uint64_t gt_offset, uint64_t *out,
                    struct imgtk_error *err)
{
    const struct vmdk_sparse *sparse = &extent->sparse;
    uint32_t width = entry_bytes(sparse), first = id.piece * VMDK_PIECE_GRAINS;
    uint64_t grain = id.table * sparse->gtes_per_gt + first;
    uint64_t grains = imgtk_div_round_up(sparse->capacity, sparse->grain);
    /* Entries behind the end of the disk mean nothing. */
    uint64_t count = imgtk_min_u64(imgtk_min_u64(VMDK_PIECE_GRAINS, sparse->gtes_per_gt - first),
                                   grain < grains ? grains - grain : 0);
    uint8_t raw[VMDK_PIECE_GRAINS * 8];
    int status = count ? imgtk_storage_pread(extent->file, raw, count * width, gt_offset + first * width, err) : 0;
    if (status)
        return status;
    memset(out, 0, VMDK_PIECE_GRAINS * sizeof(*out));
    for (uint64_t i = 0; i < count; i++) {
        if (convert_gte(extent, raw + i * width, grain + i, &out[i]))
            return imgtk_fail(err, IMGTK_ECORRUPT, "grain %llu of an extent lies at 0x%llx by its table, which is not "
                              "where data can be in a file of %llu bytes", (unsigned long long)(grain + i),
                              (unsigned long long)(width == 8 ? imgtk_le64(raw + i * 8) : imgtk_le32(raw + i * 4)),
                              (unsigned long long)extent->file_size);
    }
    return 0;
}

/* The other copy of a table, when the directory has one that lies elsewhere. */
static bool redundant_table(const struct vmdk_extent *extent, uint64_t table, uint64_t *gt_offset)
{
    uint32_t width = entry_bytes(&extent->sparse), entry = 0;
    uint8_t raw[8];
    if (extent->sparse.rgd_offset == 0 ||
        imgtk_storage_pread(extent->file, raw, width, extent->sparse.rgd_offset + table * width, NULL) ||
        convert_entry(extent, raw, &entry) || entry == 0 || entry == extent->gd[table])
        return false;
    *gt_offset = vmdk_gt_offset(&extent->sparse, entry);
    return true;
}

int vmdk_piece_load(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct vmdk_image *image = context;
    const struct vmdk_extent *extent = &image->extents[key >> KEY_EXTENT_SHIFT];
    uint64_t number = key & (((uint64_t)1 << KEY_EXTENT_SHIFT) - 1);
    uint32_t per_table = vmdk_pieces_per_gt(&extent->sparse);
    struct vmdk_piece_id id = { number / per_table, (uint32_t)(number % per_table) };
    int status = vmdk_piece_read(extent, id, vmdk_gt_offset(&extent->sparse, extent->gd[id.table]), table, err);
    uint64_t other = 0;
    if (!status || !redundant_table(extent, id.table, &other) || vmdk_piece_read(extent, id, other, table, NULL))
        return status;
    atomic_fetch_add(&image->repaired_pieces, 1);
    return 0;
}

/* ---- Cursor ---------------------------------------------------------------- */

void vmdk_cursor_end(struct vmdk_cursor *cursor)
{
    if (cursor->piece)
        imgtk_cache_put(cursor->image->pieces, cursor->piece);
    cursor->piece = NULL;
}

int vmdk_cursor_get(struct vmdk_cursor *cursor, uint64_t grain, uint64_t *value, uint64_t *run,
                    struct imgtk_error *err)
{
    const struct vmdk_extent *extent = cursor->extent;
    uint32_t gtes = extent->sparse.gtes_per_gt;
    uint64_t table = grain / gtes, within = grain % gtes;
    *run = 1;
    if (extent->gd[table] == 0) {
        *value = VMDK_GRAIN_NONE;
        *run = gtes - within;
        return 0;
    }
    uint64_t number = table * vmdk_pieces_per_gt(&extent->sparse) + within / VMDK_PIECE_GRAINS;
    uint64_t key = ((uint64_t)(extent - cursor->image->extents) << KEY_EXTENT_SHIFT) | number;
    if (!cursor->piece || cursor->key != key) {
        const void *piece = NULL;
        vmdk_cursor_end(cursor);
        int status = imgtk_cache_get(cursor->image->pieces, key, &piece, err);
        if (status)
            return status;
        cursor->piece = piece;
        cursor->key = key;
    }
    *value = cursor->piece[within % VMDK_PIECE_GRAINS];
    return 0;
}
