/* Counting what an L1 table refers to: the L2 tables, and what these refer to (l2.c). */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

enum { L1_PIECE = 4096 };

/* What is to be done about an L1 entry; from NOT_ALIGNED on, its table is left alone. */
enum verdict { NO_TABLE, TABLE, TABLE_AGAIN, NOT_ALIGNED, OUTSIDE, CUT_OFF, REPEATED };

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

/* A table that one L1 table names twice counts once, so that a loop of references costs no more than a tree. */
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
    bool again = false;
    if (status == 0 && *out == TABLE)
        status = qcow2_shared_name(state, l2_offset, &again, err);
    if (again)
        *out = TABLE_AGAIN;
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
        state->incomplete |= verdict >= NOT_ALIGNED;
    }
    return status;
}

/* QEMU takes the header for its table. Those of the active table are told, and repaired, in flags.c. */
static bool flags_nothing(const struct piece *piece, uint64_t entry)
{
    return !piece->active && (entry & QCOW2_COPIED) && (entry & QCOW2_OFFSET_MASK) == 0;
}

static int look_at_table(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context,
                         uint64_t index, bool *tell, struct imgtk_error *err)
{
    const struct piece *piece = context;
    uint64_t entry = imgtk_be64(piece->entries + index * 8);
    *tell = (entry & QCOW2_L1_RESERVED) || flags_nothing(piece, entry);
    struct qcow2_l2_visit visit = { .l2_offset = l2_offset_at(piece, index), .times = 1, .active = piece->active };
    if (piece->verdicts[index] == TABLE)
        return qcow2_count_l2(state, worker, &visit, tell, err);
    *tell |= piece->verdicts[index] != NO_TABLE;
    return 0;
}

/* The entry that names a table first has its faults told, and comes first here too. */
static int report_faults(struct qcow2_check_state *state, uint64_t l2_offset, bool again, struct imgtk_error *err)
{
    uint64_t before = state->result->corruptions;
    if (again) {
        state->result->corruptions += qcow2_shared_faults(state, l2_offset);
        return 0;
    }
    int status = qcow2_report_l2(state, l2_offset, err);
    return status ? status : qcow2_shared_keep_faults(state, l2_offset, state->result->corruptions - before, err);
}

static int report_table(struct qcow2_check_state *state, void *context, uint64_t index, struct imgtk_error *err)
{
    const struct piece *piece = context;
    uint64_t entry = imgtk_be64(piece->entries + index * 8), l2_offset = l2_offset_at(piece, index);
    uint64_t cluster_size = state->image->geometry.cluster_size;
    if (entry & QCOW2_L1_RESERVED)
        qcow2_check_corruption(state, "ERROR L1 entry with reserved bits set: 0x%" PRIx64, entry);
    if (flags_nothing(piece, entry))
        qcow2_check_corruption(state, "ERROR OFLAG_COPIED L2 cluster: a snapshot's l1_entry=%" PRIx64 " has no table",
                               entry);
    switch ((enum verdict)piece->verdicts[index]) {
    case NO_TABLE:
        break;
    case NOT_ALIGNED:
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is not aligned; L1 entry corrupted",
                               l2_offset);
        break;
    case OUTSIDE:
        qcow2_check_corruption(state, QCOW2_BEYOND_FORMAT, l2_offset, cluster_size, state->file_size);
        break;
    case CUT_OFF:
        qcow2_check_corruption(state, QCOW2_CUT_OFF_FORMAT, l2_offset, cluster_size, state->file_size);
        break;
    case REPEATED:
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is named twice by one L1 table", l2_offset);
        break;
    case TABLE:
    case TABLE_AGAIN:
        return report_faults(state, l2_offset, piece->verdicts[index] == TABLE_AGAIN, err);
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

int qcow2_count_l1(struct qcow2_check_state *state, uint64_t l1_offset, uint64_t entries, bool active,
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
    if (!qcow2_count_table(state, l1_offset, entries * 8, &status, err))
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
