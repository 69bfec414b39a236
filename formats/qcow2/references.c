/* Counting what refers to each cluster: header, L1 and L2 tables, data, snapshots, bitmaps. */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

/* ---- Ranges ------------------------------------------------------------- */

bool qcow2_count_range(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                       int *status, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    *status = 0;
    if (length == 0)
        return true;
    /* The last cluster may be cut short, by less than a cluster. */
    if (offset >= state->file_size || offset + length - 1 >= state->file_size + geometry->cluster_size - 1) {
        qcow2_check_corruption(state, "ERROR reference to 0x%" PRIx64 " of %" PRIu64
                                      " bytes reaches beyond the end of the file at 0x%" PRIx64,
                               offset, length, state->file_size);
        state->beyond = true;
        return false;
    }
    uint64_t last = (offset + length - 1) >> geometry->cluster_bits;
    for (uint64_t i = offset >> geometry->cluster_bits; i <= last && *status == 0; i++)
        *status = qcow2_tally_add(&state->tally, i, use, err);
    return true;
}

/* The same for a table that will be read: the file must hold all of it. */
static bool count_table(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                        int *status, struct imgtk_error *err)
{
    bool counted = qcow2_count_range(state, offset, length, use, status, err);
    if (counted && imgtk_range_fits(offset, length, state->file_size))
        return *status == 0;
    if (counted && *status == 0)
        qcow2_check_corruption(state, "ERROR table at 0x%" PRIx64 " of %" PRIu64
                                      " bytes is cut off by the end of the file at 0x%" PRIx64,
                               offset, length, state->file_size);
    state->incomplete = true;
    return false;
}

/* ---- L2 tables ---------------------------------------------------------- */

/* One L1 table's walk. */
struct walk {
    struct qcow2_check_state *state;
    bool active;              /* not a snapshot's: counts for the statistics */
    uint64_t tables_before;   /* L1 tables that were walked before this one */
    uint64_t next_contiguous; /* host offset at which the last cluster of the L2 table ended; 0: none yet */
};

static bool is_inside(const struct walk *walk)
{
    return !(walk->state->image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE);
}

/* bitmap: of its subclusters, which a compressed cluster has not; 0 where no entry has one */
static int count_compressed(struct walk *walk, uint64_t entry, uint64_t bitmap, struct imgtk_error *err)
{
    struct qcow2_check_state *state = walk->state;
    struct qcow2_compressed stream = qcow2_compressed(&state->image->geometry, entry);
    int status;
    if (bitmap != 0)
        qcow2_check_corruption(state, "ERROR compressed cluster with a bitmap of subclusters, entry=0x%" PRIx64, entry);
    if (!is_inside(walk)) {
        qcow2_check_corruption(state, "ERROR compressed cluster with an external data file, entry=0x%" PRIx64, entry);
        return 0;
    }
    if (walk->active) {
        state->result->allocated_clusters++;
        state->result->compressed_clusters++;
        state->result->fragmented_clusters++; /* by nature */
    }
    qcow2_count_range(state, stream.offset, stream.length, QCOW2_USE_DATA, &status, err);
    return status;
}

static void count_fragments(struct walk *walk, uint64_t host)
{
    struct imgtk_check *result = walk->state->result;
    if (!walk->active)
        return;
    result->allocated_clusters++;
    if (walk->next_contiguous != 0 && host != walk->next_contiguous)
        result->fragmented_clusters++;
    walk->next_contiguous = host + walk->state->image->geometry.cluster_size;
}

static int count_plain(struct walk *walk, uint64_t entry, struct imgtk_error *err)
{
    struct qcow2_check_state *state = walk->state;
    uint64_t host = entry & QCOW2_OFFSET_MASK, cluster_size = state->image->geometry.cluster_size;
    int status = 0;
    if (host == 0 && (is_inside(walk) || !(entry & QCOW2_COPIED)))
        return 0;
    count_fragments(walk, host);
    if (host & (cluster_size - 1)) {
        qcow2_check_corruption(state, "ERROR offset=0x%" PRIx64 ": data cluster is not aligned; L2 entry corrupted", host);
        state->incomplete = true;
        return 0;
    }
    if (is_inside(walk))
        qcow2_count_range(state, host, cluster_size, QCOW2_USE_DATA, &status, err);
    return status;
}

static void check_subclusters(struct walk *walk, uint64_t entry, uint64_t bitmap)
{
    uint64_t allocated = bitmap & UINT32_MAX, zero = bitmap >> QCOW2_SUBCLUSTERS;
    bool space = (entry & QCOW2_OFFSET_MASK) != 0 || (!is_inside(walk) && (entry & QCOW2_COPIED));
    if ((allocated & zero) != 0 || (!space && allocated != 0))
        qcow2_check_corruption(walk->state, "ERROR L2 entry 0x%" PRIx64 ": subclusters contradict each other, bitmap=0x%016" PRIx64,
                               entry, bitmap);
}

static int count_l2(struct walk *walk, uint64_t l2_offset, struct imgtk_error *err)
{
    struct qcow2_check_state *state = walk->state;
    const struct qcow2_geometry *geometry = &state->image->geometry;
    int status = imgtk_storage_pread(state->image->file, state->table, (size_t)geometry->cluster_size, l2_offset, err);
    if (status != 0)
        return imgtk_fail_prefix(err, "L2 table at 0x%" PRIx64, l2_offset);
    walk->next_contiguous = 0;
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes) {
        uint64_t entry = imgtk_be64(state->table + at);
        uint64_t bitmap = geometry->extended_l2 ? imgtk_be64(state->table + at + 8) : 0;
        if (entry & QCOW2_COMPRESSED) {
            status = count_compressed(walk, entry, bitmap, err);
            continue;
        }
        if (geometry->extended_l2)
            check_subclusters(walk, entry, bitmap);
        if (entry == 0)
            continue;
        if ((entry & QCOW2_L2_RESERVED) || (state->image->header.version < 3 && (entry & QCOW2_ZERO)))
            qcow2_check_corruption(state, "ERROR L2 entry with reserved bits set: 0x%" PRIx64, entry);
        status = count_plain(walk, entry, err);
    }
    return status;
}

/* ---- L1 tables ---------------------------------------------------------- */

/* A table that one L1 table names twice is walked once, so that a loop of references costs no more than a tree. */
static bool is_repeated(const struct walk *walk, uint64_t l2_offset)
{
    const struct qcow2_check_state *state = walk->state;
    uint64_t cluster = l2_offset >> state->image->geometry.cluster_bits;
    return qcow2_tally_count(&state->tally, cluster) > walk->tables_before + 1;
}

static int count_l1_entry(struct walk *walk, uint64_t entry, struct imgtk_error *err)
{
    struct qcow2_check_state *state = walk->state;
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK, cluster_size = state->image->geometry.cluster_size;
    int status;
    if (entry & QCOW2_L1_RESERVED)
        qcow2_check_corruption(state, "ERROR L1 entry with reserved bits set: 0x%" PRIx64, entry);
    if (l2_offset == 0)
        return 0;
    if (l2_offset & (cluster_size - 1)) {
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is not aligned; L1 entry corrupted", l2_offset);
        state->incomplete = true;
        return 0;
    }
    if (!count_table(state, l2_offset, cluster_size, QCOW2_USE_L2, &status, err))
        return status;
    if (status == 0 && is_repeated(walk, l2_offset)) {
        qcow2_check_corruption(state, "ERROR l2_offset=0x%" PRIx64 ": table is named twice by one L1 table", l2_offset);
        state->incomplete = true;
        return 0;
    }
    return status == 0 ? count_l2(walk, l2_offset, err) : status;
}

static int count_l1(struct walk *walk, uint64_t l1_offset, uint64_t entries, struct imgtk_error *err)
{
    enum { PIECE = 512 };
    struct qcow2_check_state *state = walk->state;
    uint8_t piece[PIECE * 8];
    int status;
    if (entries > 0 && (l1_offset == 0 || (l1_offset & (state->image->geometry.cluster_size - 1)))) {
        qcow2_check_corruption(state, "ERROR L1 table at 0x%" PRIx64 " is not aligned", l1_offset);
        state->incomplete = true;
        return 0;
    }
    if (!count_table(state, l1_offset, entries * 8, QCOW2_USE_ALONE, &status, err))
        return status;
    for (uint64_t i = 0; i < entries && status == 0; i++) {
        if (i % PIECE == 0)
            status = imgtk_storage_pread(state->image->file, piece, (size_t)imgtk_min_u64(entries - i, PIECE) * 8,
                                         l1_offset + i * 8, err);
        if (status == 0)
            status = count_l1_entry(walk, imgtk_be64(piece + i % PIECE * 8), err);
    }
    return status;
}

/* ---- Snapshots ------------------------------------------------------------ */

static int count_snapshot(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    struct walk *walk = context;
    walk->tables_before++;
    if (walk->state->image->header.version >= 3 && snapshot->extra_length < QCOW2_SNAPSHOT_MIN_EXTRA)
        qcow2_check_corruption(walk->state, "ERROR snapshot %s: its entry is incomplete", snapshot->id);
    if ((uint64_t)snapshot->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        qcow2_check_corruption(walk->state, "ERROR snapshot %s: L1 table of %" PRIu32 " entries", snapshot->id,
                               snapshot->l1_size);
        walk->state->incomplete = true;
        return 0;
    }
    return count_l1(walk, snapshot->l1_offset, snapshot->l1_size, err);
}

static int count_snapshots(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    struct walk walk = { .state = state };
    uint64_t end;
    if (image->header.snapshot_count == 0)
        return 0;
    int status = qcow2_snapshots_walk(image, count_snapshot, &walk, &end, err);
    if (status == 0)
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
    struct walk active = { .state = state, .active = true };
    int status;
    qcow2_count_range(state, 0, image->geometry.cluster_size, QCOW2_USE_ALONE, &status, err);
    if (status == 0)
        status = count_l1(&active, image->header.l1_offset, image->header.l1_size, err);
    if (status == 0)
        status = count_snapshots(state, err);
    if (status == 0)
        status = count_bitmaps(state, err);
    if (status == 0 && qcow2_tally_count(&state->tally, state->clusters) > 0)
        state->clusters++;
    return status;
}
