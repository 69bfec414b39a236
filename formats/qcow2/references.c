/* Counting what refers to each cluster: header, L1 tables (l1.c) of the active state and of snapshots, bitmaps. */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

#define SHARED_FORMAT \
    "ERROR table at 0x%" PRIx64 " of %" PRIu64 " bytes lies where something else is: what it refers to is not counted"

/* ---- Ranges ------------------------------------------------------------- */

bool qcow2_range_is_inside(const struct qcow2_check_state *state, uint64_t offset, uint64_t length)
{
    return offset < state->file_size && offset + length - 1 < state->file_size + state->image->geometry.cluster_size - 1;
}

bool qcow2_count_range(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                       int *status, struct imgtk_error *err)
{
    unsigned bits = state->image->geometry.cluster_bits;
    *status = 0;
    if (length == 0)
        return true;
    if (!qcow2_range_is_inside(state, offset, length)) {
        qcow2_check_corruption(state, QCOW2_BEYOND_FORMAT, offset, length, state->file_size);
        state->beyond = true;
        return false;
    }
    uint64_t first = offset >> bits, last = (offset + length - 1) >> bits;
    *status = qcow2_tally_add(&state->tally, first, last - first + 1, use, err);
    return true;
}

/* The length of a table up to the first cluster that is used already, that one included; *shared: there is one. */
static uint64_t length_alone(const struct qcow2_check_state *state, uint64_t offset, uint64_t length, bool *shared)
{
    unsigned bits = state->image->geometry.cluster_bits;
    uint64_t end = imgtk_div_round_up(offset + length, state->image->geometry.cluster_size);
    for (uint64_t cluster = offset >> bits; cluster < end; cluster++)
        if ((*shared = qcow2_tally_count(&state->tally, cluster) > 0))
            return imgtk_min_u64(length, ((cluster + 1) << bits) - offset);
    *shared = false;
    return length;
}

bool qcow2_count_table(struct qcow2_check_state *state, uint64_t offset, uint64_t length, int *status,
                       struct imgtk_error *err)
{
    bool shared = false, inside = length > 0 && qcow2_range_is_inside(state, offset, length);
    uint64_t counted = inside ? length_alone(state, offset, length, &shared) : length;
    inside = qcow2_count_range(state, offset, counted, QCOW2_USE_ALONE, status, err);
    if (inside && !shared && imgtk_range_fits(offset, length, state->file_size))
        return *status == 0;
    if (inside && *status == 0 && shared)
        qcow2_check_corruption(state, SHARED_FORMAT, offset, length);
    else if (inside && *status == 0)
        qcow2_check_corruption(state, QCOW2_CUT_OFF_FORMAT, offset, length, state->file_size);
    state->incomplete = true;
    return false;
}

/* ---- Snapshots ------------------------------------------------------------ */

static int count_snapshot(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    struct qcow2_check_state *state = context;
    if (state->image->header.version >= 3 && snapshot->extra_length < QCOW2_SNAPSHOT_MIN_EXTRA)
        qcow2_check_corruption(state, "ERROR snapshot %s: its entry is incomplete", snapshot->id);
    if ((uint64_t)snapshot->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        qcow2_check_corruption(state, "ERROR snapshot %s: L1 table of %" PRIu32 " entries", snapshot->id,
                               snapshot->l1_size);
        state->incomplete = true;
        return 0;
    }
    return qcow2_count_l1(state, snapshot->l1_offset, snapshot->l1_size, false, err);
}

static int count_snapshots(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    struct imgtk_error fault = IMGTK_ERROR_INIT;
    uint64_t end;
    if (image->header.snapshot_count == 0)
        return 0;
    int status = qcow2_snapshots_walk(image, count_snapshot, state, &end, &fault);
    if (status == IMGTK_ECORRUPT || status == IMGTK_ELIMIT) {
        qcow2_check_corruption(state, "ERROR snapshot table at 0x%" PRIx64 ": %s", image->header.snapshots_offset,
                               fault.message);
        state->incomplete = true;
        return 0;
    }
    if (status != 0)
        imgtk_fail(err, status, "%s", fault.message);
    else
        qcow2_count_range(state, image->header.snapshots_offset, end - image->header.snapshots_offset, QCOW2_USE_ALONE,
                          &status, err);
    return status;
}

static int count_l1_tables(struct qcow2_check_state *state, struct imgtk_error *err)
{
    const struct qcow2_header *header = &state->image->header;
    int status = qcow2_shared_open(state, err);
    if (status == 0)
        status = qcow2_count_l1(state, header->l1_offset, header->l1_size, true, err);
    if (status == 0)
        status = count_snapshots(state, err);
    if (status == 0)
        status = qcow2_shared_count(state, err);
    qcow2_shared_close(state);
    return status;
}

/* ---- Bitmaps ---------------------------------------------------------------- */

/* What QEMU opens no image with. A table of another length may hide what is referenced. */
static void judge_bitmap(struct qcow2_check_state *state, const struct qcow2_bitmap *bitmap)
{
    const struct qcow2 *image = state->image;
    uint64_t entries = qcow2_bitmap_entries(&image->geometry, bitmap->granularity_bits, image->header.size);
    bool in_use = (bitmap->flags & QCOW2_BITMAP_IN_USE) && bitmap->table_size > 0; /* as old as it may be */
    if (bitmap->flags & QCOW2_BITMAP_RESERVED)
        qcow2_check_corruption(state, "ERROR bitmap %s: reserved flags are set: 0x%" PRIx32, bitmap->name,
                               bitmap->flags);
    if (!bitmap->known || in_use || bitmap->table_size == entries)
        return;
    qcow2_check_corruption(state, "ERROR bitmap %s: table of %" PRIu32 " entries, and the disk needs %" PRIu64,
                           bitmap->name, bitmap->table_size, entries);
    state->incomplete = true;
}

static int count_bitmap(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err)
{
    enum { PIECE = 512 };
    struct qcow2_check_state *state = context;
    uint64_t cluster_size = state->image->geometry.cluster_size, bytes = (uint64_t)bitmap->table_size * 8;
    uint8_t piece[PIECE * 8];
    int status;
    judge_bitmap(state, bitmap);
    if (bitmap->table_offset & (cluster_size - 1)) {
        qcow2_check_corruption(state, "ERROR bitmap %s: table at 0x%" PRIx64 " is not aligned", bitmap->name,
                               bitmap->table_offset);
        state->incomplete = true;
        return 0;
    }
    if (!qcow2_count_table(state, bitmap->table_offset, bytes, &status, err))
        return status;
    for (uint64_t i = 0; i < bitmap->table_size && status == 0; i++) {
        if (i % PIECE == 0)
            status = imgtk_storage_pread(state->image->file, piece, (size_t)imgtk_min_u64(bitmap->table_size - i, PIECE) * 8,
                                         bitmap->table_offset + i * 8, err);
        if (status != 0)
            break;
        uint64_t entry = imgtk_be64(piece + i % PIECE * 8), offset = entry & QCOW2_BITMAP_TABLE_OFFSET_MASK;
        if ((entry & ~QCOW2_BITMAP_TABLE_OFFSET_MASK & ~UINT64_C(1)) != 0 || (offset & (cluster_size - 1)) != 0 ||
            (offset != 0 && (entry & 1))) {
            qcow2_check_corruption(state, "ERROR bitmap %s: entry 0x%" PRIx64 " is corrupted", bitmap->name, entry);
            state->incomplete = true;
        } else if (offset != 0) {
            qcow2_count_range(state, offset, cluster_size, QCOW2_USE_ALONE, &status, err);
        }
    }
    return status;
}

static int count_bitmaps(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    const struct qcow2_bitmaps *bitmaps = &image->extensions.bitmaps;
    int status = 0;
    if (bitmaps->count == 0)
        return 0;
    qcow2_count_range(state, bitmaps->directory_offset, bitmaps->directory_size, QCOW2_USE_ALONE, &status, err);
    return status == 0 ? qcow2_bitmaps_walk(image, count_bitmap, state, err) : status;
}

int qcow2_count_references(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    int status;
    qcow2_count_range(state, 0, image->geometry.cluster_size, QCOW2_USE_ALONE, &status, err);
    if (status == 0)
        status = count_l1_tables(state, err);
    if (status == 0)
        status = count_bitmaps(state, err);
    if (status == 0 && qcow2_tally_count(&state->tally, state->clusters) > 0)
        state->clusters++;
    return status;
}
