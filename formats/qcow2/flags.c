/* The "copied" flags: set exactly where a refcount is one, since a cluster with the flag is written in place. */
#include <inttypes.h>

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

/* Whether the flag of an L2 entry is wrong; wrong ones are reported. */
static int judge_l2_entry(struct qcow2_check_state *state, uint64_t entry, bool *wrong, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    uint64_t host = entry & QCOW2_OFFSET_MASK, refcount;
    *wrong = false;
    if (entry & QCOW2_COMPRESSED) {
        *wrong = entry & QCOW2_COPIED;
        if (*wrong)
            qcow2_check_corruption(state, "ERROR compressed cluster with the copied flag, entry=0x%" PRIx64, entry);
        return 0;
    }
    if (host == 0 || (host & (geometry->cluster_size - 1)) ||
        (state->image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return 0;
    int status = qcow2_refcount_of(state, host >> geometry->cluster_bits, &refcount, err);
    if (status == 0 && (refcount == 1) != ((entry & QCOW2_COPIED) != 0)) {
        qcow2_check_corruption(state, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64, entry,
                               refcount);
        *wrong = true;
    }
    return status;
}

static int check_l2(struct qcow2_check_state *state, uint64_t l2_offset, bool repair, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    uint64_t cluster = l2_offset >> geometry->cluster_bits;
    struct changed changed = { 0, 0 };
    /* Named twice by one table, which is reported already: once is enough. */
    if (qcow2_tally_count(&state->tally, cluster) > (uint64_t)state->image->header.snapshot_count + 1)
        return 0;
    int status = imgtk_storage_pread(state->image->file, state->table, (size_t)geometry->cluster_size, l2_offset, err);
    bool may_write = repair && qcow2_tally_use(&state->tally, cluster) == QCOW2_USE_L2;
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes) {
        bool wrong;
        uint64_t entry = imgtk_be64(state->table + at);
        if (entry == 0)
            continue;
        status = judge_l2_entry(state, entry, &wrong, err);
        if (status == 0 && wrong && may_write)
            fix(state, state->table, at, entry, &changed);
    }
    return status == 0 ? write_back(state, state->table, l2_offset, &changed, err) : status;
}

static int judge_l1_entry(struct qcow2_check_state *state, uint64_t index, uint64_t entry, bool *wrong,
                          struct imgtk_error *err)
{
    uint64_t refcount, l2_offset = entry & QCOW2_OFFSET_MASK;
    int status = qcow2_refcount_of(state, l2_offset >> state->image->geometry.cluster_bits, &refcount, err);
    *wrong = status == 0 && (l2_offset != 0 && refcount == 1) != ((entry & QCOW2_COPIED) != 0);
    if (*wrong)
        qcow2_check_corruption(state, "ERROR OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
                                      " refcount=%" PRIu64, index, entry, refcount);
    return status;
}

static bool is_table(const struct qcow2_check_state *state, uint64_t entry)
{
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK, cluster_size = state->image->geometry.cluster_size;
    return l2_offset != 0 && (l2_offset & (cluster_size - 1)) == 0 &&
           imgtk_range_fits(l2_offset, cluster_size, state->file_size);
}

/* A writer would take the header for the table. */
static bool is_empty_but_copied(uint64_t entry)
{
    return (entry & QCOW2_OFFSET_MASK) == 0 && (entry & QCOW2_COPIED);
}

/* Some entries of the L1 table; `first` is the index of the first. */
static int check_piece(struct qcow2_check_state *state, uint8_t *piece, uint64_t first, uint64_t entries, bool repair,
                       struct imgtk_error *err)
{
    struct changed changed = { 0, 0 };
    int status = 0;
    for (uint64_t i = 0; i < entries && status == 0; i++) {
        bool wrong;
        uint64_t entry = imgtk_be64(piece + i * 8);
        bool table = is_table(state, entry);
        if (!table && !is_empty_but_copied(entry))
            continue;
        status = judge_l1_entry(state, first + i, entry, &wrong, err);
        if (status == 0 && wrong && repair)
            fix(state, piece, i * 8, entry, &changed);
        if (status == 0 && table)
            status = check_l2(state, entry & QCOW2_OFFSET_MASK, repair, err);
    }
    return status == 0 ? write_back(state, piece, state->image->header.l1_offset + first * 8, &changed, err) : status;
}

int qcow2_check_flags(struct qcow2_check_state *state, bool repair, struct imgtk_error *err)
{
    enum { PIECE = 512 };
    const struct qcow2_header *header = &state->image->header;
    uint8_t piece[PIECE * 8];
    int status = 0;
    if (header->l1_size == 0 || header->l1_offset == 0 ||
        !imgtk_range_fits(header->l1_offset, (uint64_t)header->l1_size * 8, state->file_size))
        return 0; /* reported when references were counted */
    bool may_write = repair && qcow2_tally_use(&state->tally, header->l1_offset >> header->cluster_bits) == QCOW2_USE_ALONE;
    for (uint64_t i = 0; i < header->l1_size && status == 0; i += PIECE) {
        uint64_t entries = imgtk_min_u64(header->l1_size - i, PIECE);
        status = imgtk_storage_pread(state->image->file, piece, (size_t)entries * 8, header->l1_offset + i * 8, err);
        if (status == 0)
            status = check_piece(state, piece, i, entries, may_write, err);
    }
    return status == 0 && repair ? imgtk_storage_flush(state->image->file, err) : status;
}
