/* `check`: grain tables, their redundant copies, and whether grains share their place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/leaks.h"
#include "vmdk.h"

#define MAX_REPORTS 1000u
#define WINDOW_BITS ((uint64_t)1 << 27) /* places that one pass looks at: 16 MiB of memory */

struct walk {
    struct vmdk_extent *extent;
    struct imgtk_check *check;
    uint32_t *copy;            /* the redundant directory; NULL: none, or damaged */
    uint8_t *seen;             /* one bit per grain-sized place in the window */
    uint64_t window, places;   /* first place of the window; places in the file */
    uint64_t taken;            /* places that grains have */
    uint64_t grains_end;       /* of the last grain in the file */
    bool count;                /* the first pass counts and reports tables */
};

static void report(const struct walk *walk, const char *text)
{
    char line[IMGTK_MESSAGE_SIZE + 256];
    snprintf(line, sizeof(line), "extent '%.200s': %s", walk->extent->name, text);
    walk->check->report(walk->check->context, line);
}

/* All are counted; a table full of garbage is told in some lines. */
static void report_corruption(const struct walk *walk, const char *text)
{
    if (walk->check->corruptions++ < MAX_REPORTS)
        report(walk, text);
    else if (walk->check->corruptions == MAX_REPORTS + 1)
        report(walk, "more is wrong than is told here");
}

/* ---- Grains ------------------------------------------------------------------- */

/* The marker in front of a compressed grain names the grain, so two that share a place show here. */
static int check_marker(const struct walk *walk, uint64_t grain, uint64_t host, struct imgtk_error *err)
{
    const struct vmdk_sparse *sparse = &walk->extent->sparse;
    uint8_t marker[VMDK_M_GRAIN_DATA];
    char text[160];
    int status = sparse->markers ? imgtk_storage_pread(walk->extent->file, marker, sizeof(marker), host, err) : 0;
    if (status || !sparse->markers)
        return status;
    uint64_t lba = imgtk_le64(marker + VMDK_M_VALUE);
    uint32_t size = imgtk_le32(marker + VMDK_M_SIZE);
    if (lba == grain * (sparse->grain / VMDK_SECTOR) && size > 0 && size <= sparse->grain * 2 &&
        imgtk_range_fits(host + sizeof(marker), size, walk->extent->file_size))
        return 0;
    snprintf(text, sizeof(text), "the marker of grain %llu at %llu has sector %llu and %u bytes",
             (unsigned long long)grain, (unsigned long long)host, (unsigned long long)lba, size);
    report_corruption(walk, text);
    return 0;
}

static void mark_place(struct walk *walk, uint64_t grain, uint64_t host)
{
    uint64_t place = host / walk->extent->sparse.grain;
    if (place < walk->window || place - walk->window >= WINDOW_BITS)
        return;
    uint8_t *byte = &walk->seen[(place - walk->window) / 8];
    uint8_t bit = (uint8_t)(1u << (place - walk->window) % 8);
    if (*byte & bit) {
        char text[128];
        snprintf(text, sizeof(text), "grain %llu shares its place at %llu with another", (unsigned long long)grain,
                 (unsigned long long)host);
        report_corruption(walk, text);
    } else {
        walk->taken++;
    }
    *byte |= bit;
}

static int check_grains(struct walk *walk, uint64_t first, const uint64_t *values, struct imgtk_error *err)
{
    for (uint64_t i = 0; i < VMDK_PIECE_GRAINS; i++) {
        if (values[i] == VMDK_GRAIN_NONE)
            continue;
        if (walk->count)
            walk->check->allocated_clusters++;
        if (values[i] == VMDK_GRAIN_ZERO)
            continue;
        if (!walk->extent->sparse.compressed) {
            uint64_t end = values[i] + walk->extent->sparse.grain;
            walk->grains_end = end > walk->grains_end ? end : walk->grains_end;
            mark_place(walk, first + i, values[i]);
            continue;
        }
        walk->check->compressed_clusters++;
        int status = check_marker(walk, first + i, values[i], err);
        if (status)
            return status;
    }
    return 0;
}

/* ---- Tables -------------------------------------------------------------------- */

static bool other_table(const struct walk *walk, uint64_t table, uint64_t *offset)
{
    if (!walk->copy || walk->copy[table] == 0 || walk->copy[table] == walk->extent->gd[table])
        return false;
    *offset = vmdk_gt_offset(&walk->extent->sparse, walk->copy[table]);
    return true;
}

/* Reads a piece and its copy, and reports what is wrong with either; *usable: values are those to go by. */
static int compare_copies(const struct walk *walk, struct vmdk_piece_id id, uint64_t *values, bool *usable,
                          struct imgtk_error *err)
{
    uint64_t copy[VMDK_PIECE_GRAINS], other = 0;
    struct imgtk_error fault = IMGTK_ERROR_INIT, other_fault = IMGTK_ERROR_INIT;
    int status = vmdk_piece_read(walk->extent, id, vmdk_gt_offset(&walk->extent->sparse, walk->extent->gd[id.table]),
                                 values, &fault);
    bool has_copy = other_table(walk, id.table, &other);
    int other_status = has_copy ? vmdk_piece_read(walk->extent, id, other, copy, &other_fault) : 0;
    *usable = status == 0 || (has_copy && other_status == 0);
    if (!*usable && status != IMGTK_ECORRUPT)
        return imgtk_fail(err, status, "%s", fault.message);
    if (walk->count && status)
        report_corruption(walk, fault.message);
    if (walk->count && other_status) {
        char text[IMGTK_MESSAGE_SIZE];
        snprintf(text, sizeof(text), "redundant copy: %.900s", other_fault.message);
        report_corruption(walk, text);
    }
    if (walk->count && has_copy && !status && !other_status && memcmp(values, copy, sizeof(copy)) != 0) {
        char text[96];
        snprintf(text, sizeof(text), "grain table %llu and its redundant copy differ", (unsigned long long)id.table);
        report_corruption(walk, text);
    }
    if (status && *usable)
        memcpy(values, copy, sizeof(copy));
    return 0;
}

static int check_table(struct walk *walk, uint64_t table, struct imgtk_error *err)
{
    const struct vmdk_sparse *sparse = &walk->extent->sparse;
    for (uint32_t piece = 0; piece < vmdk_pieces_per_gt(sparse); piece++) {
        uint64_t values[VMDK_PIECE_GRAINS];
        bool usable = false;
        int status = compare_copies(walk, (struct vmdk_piece_id){ table, piece }, values, &usable, err);
        if (!status && usable)
            status = check_grains(walk, table * sparse->gtes_per_gt + piece * VMDK_PIECE_GRAINS, values, err);
        if (status)
            return status;
    }
    return 0;
}

static int check_pass(struct walk *walk, struct imgtk_error *err)
{
    for (uint64_t table = 0; table < walk->extent->sparse.gd_entries; table++) {
        int status = walk->extent->gd[table] ? check_table(walk, table, err) : 0;
        if (status)
            return status;
    }
    return 0;
}

/* ---- Extents --------------------------------------------------------------------- */

static void check_directory(struct walk *walk)
{
    struct imgtk_error fault = IMGTK_ERROR_INIT;
    if (walk->extent->gd_redundant)
        report_corruption(walk, "the grain directory is damaged; its redundant copy is not");
    if (!walk->extent->sparse.rgd_offset)
        return;
    if (vmdk_gd_read(walk->extent, true, &walk->copy, &fault) == 0)
        return;
    char text[IMGTK_MESSAGE_SIZE];
    snprintf(text, sizeof(text), "redundant copy: %.900s", fault.message);
    report_corruption(walk, text);
}

/* ---- Leaks --------------------------------------------------------------------- */

/* Grain tables that do not lie before the grains. */
static uint64_t count_tables_behind(const struct walk *walk, const uint32_t *gd)
{
    const struct vmdk_sparse *sparse = &walk->extent->sparse;
    uint64_t count = 0;
    for (uint64_t i = 0; i < sparse->gd_entries && gd; i++)
        count += gd[i] != 0 && vmdk_gt_offset(sparse, gd[i]) >= sparse->overhead;
    return count;
}

/*
 * Of a hosted sparse extent: room for grains behind the overhead that no grain has. A table behind it counts as much as
 * a grain, since a writer may align the next grain. Compressed grains have no size of their own.
 */
static uint64_t count_leaked(const struct walk *walk)
{
    const struct vmdk_extent *extent = walk->extent;
    const struct vmdk_sparse *sparse = &extent->sparse;
    if (sparse->format != VMDK_HOSTED || sparse->compressed || sparse->overhead == 0 ||
        sparse->overhead > extent->file_size)
        return 0;
    uint64_t room = (extent->file_size - sparse->overhead) / sparse->grain;
    uint64_t used = walk->taken + count_tables_behind(walk, extent->gd) + count_tables_behind(walk, walk->copy);
    return room > used ? room - used : 0;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Of a directory, where it has its place, and of its tables. */
static uint64_t directory_end(const struct walk *walk, const uint32_t *gd, uint64_t offset)
{
    const struct vmdk_sparse *sparse = &walk->extent->sparse;
    uint64_t end = gd ? offset + imgtk_round_up(sparse->gd_entries * 4, VMDK_SECTOR) : 0;
    for (uint64_t i = 0; i < sparse->gd_entries && gd; i++)
        if (gd[i] != 0)
            end = later(end, vmdk_gt_offset(sparse, gd[i]) + (uint64_t)sparse->gtes_per_gt * 4);
    return end;
}

/* All faults are counted by now: without one, every copy of a directory that the header names has been read. */
static int cut_leaks(const struct walk *walk, uint64_t leaked, struct imgtk_error *err)
{
    struct vmdk_extent *extent = walk->extent;
    const struct vmdk_sparse *sparse = &extent->sparse;
    uint64_t end = later(walk->grains_end, sparse->overhead);
    end = later(end, directory_end(walk, extent->gd, sparse->gd_offset));
    end = later(end, directory_end(walk, walk->copy, sparse->rgd_offset));
    end = later(end, sparse->descriptor_offset + sparse->descriptor_length);
    struct leaks_tail tail = { .end = end };
    if (end < extent->file_size)
        tail.count = imgtk_min_u64((extent->file_size - end) / sparse->grain, leaked);
    if (walk->check->corruptions > 0)
        tail.unsafe = "the image has other faults";
    else if (sparse->unclean)
        tail.unsafe = "the extent was not closed by its last writer";
    if (!leaks_can_cut(walk->check, extent->file, &tail))
        return 0;
    int status = leaks_cut(walk->check, extent->file, &tail, err);
    if (!status)
        extent->file_size = end;
    return status;
}

static int check_extent(struct vmdk_extent *extent, struct imgtk_check *check, struct imgtk_error *err)
{
    struct walk walk = { .extent = extent, .check = check, .count = true };
    walk.places = extent->file_size / extent->sparse.grain + 1;
    check->total_clusters += imgtk_div_round_up(extent->length, extent->sparse.grain);
    walk.seen = malloc((size_t)(imgtk_min_u64(walk.places, WINDOW_BITS) / 8 + 1));
    if (!walk.seen)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory to check an extent");
    check_directory(&walk);
    int status = 0;
    do {
        memset(walk.seen, 0, (size_t)(imgtk_min_u64(walk.places, WINDOW_BITS) / 8 + 1));
        status = check_pass(&walk, err);
        walk.count = false;
        walk.window += WINDOW_BITS;
    } while (!status && !extent->sparse.compressed && walk.window < walk.places);
    if (!status)
        leaks_report(check, extent->file, "grains", count_leaked(&walk));
    if (!status)
        status = cut_leaks(&walk, count_leaked(&walk), err);
    free(walk.seen);
    free(walk.copy);
    return status;
}

int vmdk_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vmdk_image *image = handle;
    for (size_t i = 0; i < image->extent_count; i++) {
        struct vmdk_extent *extent = &image->extents[i];
        if (!vmdk_is_sparse(extent)) /* has nothing but data */
            continue;
        if (!extent->file)
            return imgtk_fail(err, IMGTK_EREFUSED, "extent '%s' lies in another file, and check follows no reference: "
                              "check that file", extent->name);
        int status = check_extent(extent, check, err);
        if (status)
            return status;
    }
    return 0;
}
