/* The "copied" flags: set exactly where a refcount is one, since a cluster with the flag is written in place. */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

/* Bytes of a table that were changed, to be written back. */
struct changed {
    uint64_t first, end;
};

static void fix(struct qcow2_check_state *state, uint8_t *table, uint64_t at, uint64_t entry, struct changed *changed)
{
    imgtk_put_be64(table + at, entry ^ QCOW2_COPIED);
    if (changed->end == 0)
        changed->first = at;
    changed->end = at + 8;
    state->result->corruptions--;
    state->result->corruptions_fixed++;
}

static int write_back(struct qcow2_check_state *state, const uint8_t *table, uint64_t offset,
                      const struct changed *changed, struct imgtk_error *err)
{
    if (changed->end == 0)
        return 0;
    return imgtk_storage_pwrite(state->image->file, table + changed->first, (size_t)(changed->end - changed->first),
                                offset + changed->first, err);
}

/* ---- L2 tables ------------------------------------------------------------ */

/* Whether the flag of an L2 entry is wrong; *refcount: of its cluster, unless that is compressed. */
static int judge_l2_entry(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t entry,
                          uint64_t *refcount, bool *wrong, struct imgtk_error *err)
{
    const struct qcow2 *image = state->image;
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    int status = 0;
    *wrong = (entry & QCOW2_COMPRESSED) && (entry & QCOW2_COPIED);
    if ((entry & QCOW2_COMPRESSED) || host == 0 || (host & (image->geometry.cluster_size - 1)))
        return 0;
    *refcount = 1; /* that of all clusters of an external data file, which counts none */
    if (!(image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE))
        status = qcow2_refcount_of(state, worker, host >> image->geometry.cluster_bits, refcount, err);
    *wrong = status == 0 && (*refcount == 1) != ((entry & QCOW2_COPIED) != 0);
    return status;
}

static void report_l2_entry(struct qcow2_check_state *state, uint64_t entry, uint64_t refcount)
{
    if (entry & QCOW2_COMPRESSED)
        qcow2_check_corruption(state, "ERROR compressed cluster with the copied flag, entry=0x%" PRIx64, entry);
    else
        qcow2_check_corruption(state, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64, entry,
                               refcount);
}

static int read_l2(const struct qcow2_check_state *state, const struct qcow2_check_worker *worker, uint64_t l2_offset,
                   struct imgtk_error *err)
{
    return imgtk_storage_pread(state->image->file, worker->table, (size_t)state->image->geometry.cluster_size, l2_offset,
                               err);
}

static int look_at_l2(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t l2_offset,
                      bool *tell, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    int status = read_l2(state, worker, l2_offset, err);
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0 && !*tell; at += geometry->l2_entry_bytes) {
        uint64_t refcount, entry = imgtk_be64(worker->table + at);
        if (entry != 0)
            status = judge_l2_entry(state, worker, entry, &refcount, tell, err);
    }
    return status;
}

static int report_l2(struct qcow2_check_state *state, uint64_t l2_offset, bool repair, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    struct qcow2_check_worker *own = &state->own;
    struct changed changed = { 0, 0 };
    int status = read_l2(state, own, l2_offset, err);
    bool may_write = repair && qcow2_tally_use(&state->tally, l2_offset >> geometry->cluster_bits) == QCOW2_USE_L2;
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes) {
        bool wrong = false;
        uint64_t refcount = 0, entry = imgtk_be64(own->table + at);
        if (entry != 0)
            status = judge_l2_entry(state, own, entry, &refcount, &wrong, err);
        if (status != 0 || !wrong)
            continue;
        report_l2_entry(state, entry, refcount);
        if (may_write)
            fix(state, own->table, at, entry, &changed);
    }
    return status == 0 ? write_back(state, own->table, l2_offset, &changed, err) : status;
}

/* ---- L1 table --------------------------------------------------------------- */

enum { PIECE = 4096 };

/* Some entries of the L1 table. */
struct piece {
    uint64_t first;         /* index of the first one */
    bool repair;
    struct changed changed;
    uint8_t entries[PIECE * 8];
};

static uint64_t entry_at(const struct piece *piece, uint64_t index)
{
    return imgtk_be64(piece->entries + index * 8);
}

static bool is_table(const struct qcow2_check_state *state, uint64_t entry)
{
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK, cluster_size = state->image->geometry.cluster_size;
    return l2_offset != 0 && (l2_offset & (cluster_size - 1)) == 0 &&
           imgtk_range_fits(l2_offset, cluster_size, state->file_size);
}

/* One that is named twice by one L1 table, which is reported already, is not looked at: once is enough. */
static bool is_worth_a_look(const struct qcow2_check_state *state, uint64_t entry)
{
    uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> state->image->geometry.cluster_bits;
    return is_table(state, entry) && qcow2_tally_count(&state->tally, cluster) <= state->l1_tables;
}

static int judge_l1_entry(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t entry,
                          uint64_t *refcount, bool *wrong, struct imgtk_error *err)
{
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK;
    *wrong = false;
    /* A writer would take the header for the table of an entry that is empty but for the flag. */
    if (!is_table(state, entry) && !(l2_offset == 0 && (entry & QCOW2_COPIED)))
        return 0;
    int status = qcow2_refcount_of(state, worker, l2_offset >> state->image->geometry.cluster_bits, refcount, err);
    *wrong = status == 0 && (l2_offset != 0 && *refcount == 1) != ((entry & QCOW2_COPIED) != 0);
    return status;
}

static int look_at_entry(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context,
                         uint64_t index, bool *tell, struct imgtk_error *err)
{
    uint64_t refcount, entry = entry_at(context, index);
    int status = judge_l1_entry(state, worker, entry, &refcount, tell, err);
    if (status != 0 || *tell || !is_worth_a_look(state, entry))
        return status;
    return look_at_l2(state, worker, entry & QCOW2_OFFSET_MASK, tell, err);
}

static int report_entry(struct qcow2_check_state *state, void *context, uint64_t index, struct imgtk_error *err)
{
    struct piece *piece = context;
    uint64_t refcount = 0, entry = entry_at(piece, index);
    bool wrong;
    int status = judge_l1_entry(state, &state->own, entry, &refcount, &wrong, err);
    if (wrong)
        qcow2_check_corruption(state, "ERROR OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
                                      " refcount=%" PRIu64, piece->first + index, entry, refcount);
    if (wrong && piece->repair)
        fix(state, piece->entries, index * 8, entry, &piece->changed);
    if (status != 0 || !is_worth_a_look(state, entry))
        return status;
    return report_l2(state, entry & QCOW2_OFFSET_MASK, piece->repair, err);
}

static int check_piece(struct qcow2_check_state *state, struct piece *piece, struct imgtk_error *err)
{
    const struct qcow2_header *header = &state->image->header;
    uint64_t offset = header->l1_offset + piece->first * 8;
    struct qcow2_pass pass = { imgtk_min_u64(header->l1_size - piece->first, PIECE), look_at_entry, report_entry, piece };
    piece->changed = (struct changed){ 0, 0 };
    int status = imgtk_storage_pread(state->image->file, piece->entries, (size_t)pass.items * 8, offset, err);
    if (status == 0)
        status = qcow2_pass_run(state, &pass, err);
    return status == 0 ? write_back(state, piece->entries, offset, &piece->changed, err) : status;
}

int qcow2_check_flags(struct qcow2_check_state *state, bool repair, struct imgtk_error *err)
{
    const struct qcow2_header *header = &state->image->header;
    int status = 0;
    if (header->l1_size == 0 || header->l1_offset == 0 ||
        !imgtk_range_fits(header->l1_offset, (uint64_t)header->l1_size * 8, state->file_size))
        return 0; /* reported when references were counted */
    struct piece *piece = malloc(sizeof(*piece));
    if (!piece)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table");
    bool alone = qcow2_tally_use(&state->tally, header->l1_offset >> header->cluster_bits) == QCOW2_USE_ALONE;
    piece->repair = repair && alone; /* else the L2 tables are left alone too */
    for (piece->first = 0; piece->first < header->l1_size && status == 0; piece->first += PIECE)
        status = check_piece(state, piece, err);
    free(piece);
    return status == 0 && repair ? imgtk_storage_flush(state->image->file, err) : status;
}
