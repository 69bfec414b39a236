/* Counting what refers to each cluster: header, L1 and L2 tables (l2.c), snapshots, bitmaps. */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

#define CUT_OFF_FORMAT "ERROR table at 0x%" PRIx64 " of %" PRIu64 " bytes is cut off by the end of the file at 0x%" PRIx64
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

/*
 * The same for a table that will be read: the file must hold all of it, and it nothing else. So no byte of the file is
 * gone over twice as a table, or counted, however many tables are said to be there.
 */
static bool count_table(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                        int *status, struct imgtk_error *err)
{
    bool shared = false, inside = length > 0 && qcow2_range_is_inside(state, offset, length);
    uint64_t counted = inside ? length_alone(state, offset, length, &shared) : length;
    inside = qcow2_count_range(state, offset, counted, use, status, err);
    if (inside && !shared && imgtk_range_fits(offset, length, state->file_size))
        return *status == 0;
    if (inside && *status == 0 && shared)
        qcow2_check_corruption(state, SHARED_FORMAT, offset, length);
    else if (inside && *status == 0)
        qcow2_check_corruption(state, CUT_OFF_FORMAT, offset, length, state->file_size);
    state->incomplete = true;
    return false;
}

/* ---- L1 tables ---------------------------------------------------------- */

enum { L1_PIECE = 4096 };

/* What is to be done about an L1 entry. */
enum verdict { NO_TABLE, NOT_ALIGNED, OUTSIDE, CUT_OFF, REPEATED, TABLE };

/* Some entries of an L1 table, all of which are counted before any of the tables that they name. */
struct piece {
    bool active;            /* not a snapshot's */
    uint64_t tables_before; /* L1 tables that were counted before this one */
    uint8_t verdicts[L1_PIECE];
    uint8_t entries[L1_PIECE * 8];
};

static uint64_t l2_offset_at(const struct piece *piece, uint64_t index)
{
    return imgtk_be64(piece->entries + index * 8) & QCOW2_OFFSET_MASK;
}

/* A table that one L1 table names twice is walked once, so that a loop of references costs no more than a tree. */
static bool is_repeated(const struct qcow2_check_state *state, const struct piece *piece, uint64_t l2_offset)
{
    uint64_t cluster = l2_offset >> state->image->geometry.cluster_bits;
    return qcow2_tally_count(&state->tally, cluster) > piece->tables_before + 1;
}

static int judge_table(struct qcow2_check_state *state, const struct piece *piece, uint64_t l2_offset,
                       enum verdict *out, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    *out = l2_offset == 0 ? NO_TABLE : NOT_ALIGNED;
    if (l2_offset & (geometry->cluster_size - 1) || l2_offset == 0)
        return 0;
    *out = OUTSIDE;
    if (!qcow2_range_is_inside(state, l2_offset, geometry->cluster_size))
        return 0;
    int status = qcow2_tally_add(&state->tally, l2_offset >> geometry->cluster_bits, 1, QCOW2_USE_L2, err);
    *out = !imgtk_range_fits(l2_offset, geometry->cluster_size, state->file_size) ? CUT_OFF
         : is_repeated(state, piece, l2_offset) ? REPEATED : TABLE;
    return status;
}

static int judge_tables(struct qcow2_check_state *state, struct piece *piece, uint64_t entries, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t i = 0; i < entries && status == 0; i++) {
        enum verdict verdict;
        status = judge_table(state, piece, l2_offset_at(piece, i), &verdict, err);
        piece->verdicts[i] = (uint8_t)verdict;
        state->beyond |= verdict == OUTSIDE;
        state->incomplete |= verdict != TABLE && verdict != NO_TABLE;
    }
    return status;
}

static int look_at_table(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context,
                         uint64_t index, bool *tell, struct imgtk_error *err)
{
    const struct piece *piece = context;
    *tell = imgtk_be64(piece->entries + index * 8) & QCOW2_L1_RESERVED;
    if (piece->verdicts[index] == TABLE)
        return qcow2_count_l2(state, worker, l2_offset_at(piece, index), piece->active, tell, err);
    *tell |= piece->verdicts[index] != NO_TABLE;
    return 0;
}

static int report_table(struct qcow2_check_state *state, void *context, uint64_t index, struct imgtk_error *err)
{
    const struct piece *piece = context;
    uint64_t entry = imgtk_be64(piece->entries + index * 8), l2_offset = l2_offset_at(piece, index);
    uint64_t cluster_size = state->image->geometry.cluster_size;
    if (entry & QCOW2_L1_RESERVED)
        qcow2_check_corruption(state, "ERROR L1 entry with reserved bits set: 0x%" PRIx64, entry);
    switch ((enum verdict)piece->verdicts[index]) {
    case NO_TABLE:
        break;
    case NOT_ALIGNED:
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is not aligned; L1 entry corrupted", l2_offset);
        break;
    case OUTSIDE:
        qcow2_check_corruption(state, QCOW2_BEYOND_FORMAT, l2_offset, cluster_size, state->file_size);
        break;
    case CUT_OFF:
        qcow2_check_corruption(state, CUT_OFF_FORMAT, l2_offset, cluster_size, state->file_size);
        break;
    case REPEATED:
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is named twice by one L1 table", l2_offset);
        break;
    case TABLE:
        return qcow2_report_l2(state, l2_offset, err);
    }
    return 0;
}

static int count_pieces(struct qcow2_check_state *state, struct piece *piece, uint64_t l1_offset, uint64_t entries,
                        struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t first = 0; first < entries && status == 0; first += L1_PIECE) {
        struct qcow2_pass pass = { imgtk_min_u64(entries - first, L1_PIECE), look_at_table, report_table, piece };
        status = imgtk_storage_pread(state->image->file, piece->entries, (size_t)pass.items * 8, l1_offset + first * 8,
                                     err);
        if (status == 0)
            status = judge_tables(state, piece, pass.items, err);
        if (status == 0)
            status = qcow2_pass_run(state, &pass, err);
    }
    return status;
}

static int count_l1(struct qcow2_check_state *state, uint64_t l1_offset, uint64_t entries, bool active,
                    struct imgtk_error *err)
{
    int status;
    if (entries == 0)
        return 0;
    if (l1_offset == 0 || (l1_offset & (state->image->geometry.cluster_size - 1))) {
        qcow2_check_corruption(state, "ERROR L1 table at 0x%" PRIx64 " is not aligned", l1_offset);
        state->incomplete = true;
        return 0;
    }
    if (!count_table(state, l1_offset, entries * 8, QCOW2_USE_ALONE, &status, err))
        return status;
    struct piece *piece = malloc(sizeof(*piece));
    if (!piece)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table");
    piece->active = active;
    piece->tables_before = state->l1_tables++;
    status = count_pieces(state, piece, l1_offset, entries, err);
    free(piece);
    return status;
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
    return count_l1(state, snapshot->l1_offset, snapshot->l1_size, false, err);
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

/* ---- Bitmaps ---------------------------------------------------------------- */

static int count_bitmap(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err)
{
    enum { PIECE = 512 };
    struct qcow2_check_state *state = context;
    uint64_t cluster_size = state->image->geometry.cluster_size, bytes = (uint64_t)bitmap->table_size * 8;
    uint8_t piece[PIECE * 8];
    int status;
    if (bitmap->table_offset & (cluster_size - 1)) {
        qcow2_check_corruption(state, "ERROR bitmap %s: table at 0x%" PRIx64 " is not aligned", bitmap->name,
                               bitmap->table_offset);
        state->incomplete = true;
        return 0;
    }
    if (!count_table(state, bitmap->table_offset, bytes, QCOW2_USE_ALONE, &status, err))
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
        status = count_l1(state, image->header.l1_offset, image->header.l1_size, true, err);
    if (status == 0)
        status = count_snapshots(state, err);
    if (status == 0)
        status = count_bitmaps(state, err);
    if (status == 0 && qcow2_tally_count(&state->tally, state->clusters) > 0)
        state->clusters++;
    return status;
}
