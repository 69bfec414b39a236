/* Which clusters are used, now and after the commit, and the refcounts that say so. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"

static const struct qcow2_geometry *geometry_of(const struct qcow2_edit *edit)
{
    return &edit->image->geometry;
}

/* ---- Room --------------------------------------------------------------------- */

static uint64_t block_of(const struct qcow2_edit *edit, uint64_t cluster)
{
    return cluster >> geometry_of(edit)->refcount_block_bits;
}

/* The first bytes come from calloc(): of a file that is nearly all holes, few are ever touched. */
static int grow_bytes(uint8_t **bytes, uint64_t from, uint64_t to, struct imgtk_error *err)
{
    if (to <= from)
        return 0;
    uint8_t *grown = *bytes ? realloc(*bytes, (size_t)to) : calloc(1, (size_t)to);
    if (!grown)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the state of clusters");
    if (*bytes)
        memset(grown + from, 0, (size_t)(to - from));
    *bytes = grown;
    return 0;
}

/* Room for `clusters` in the tally and what goes with it. */
static int reserve(struct qcow2_edit *edit, uint64_t clusters, struct imgtk_error *err)
{
    uint64_t before = edit->check.tally.clusters;
    if (clusters <= before && edit->freed)
        return 0;
    uint64_t room = clusters > before ? clusters + clusters / 8 + 64 : before;
    uint64_t blocks = block_of(edit, room - 1) + 1;
    int status = grow_bytes(&edit->freed, edit->freed ? before / 8 + 1 : 0, room / 8 + 1, err);
    if (status == 0)
        status = grow_bytes(&edit->blocks, edit->block_room, blocks, err);
    if (status != 0)
        return status;
    if (blocks > edit->block_room)
        edit->block_room = blocks;
    return qcow2_tally_grow(&edit->check.tally, room, err);
}

int qcow2_edit_clusters_open(struct qcow2_edit *edit, struct imgtk_error *err)
{
    memset(edit->next, 0, sizeof(edit->next));
    edit->table_offset = edit->image->header.refcount_table_offset;
    edit->table_clusters = edit->image->header.refcount_table_clusters;
    return reserve(edit, edit->check.tally.clusters, err);
}

/* ---- References ------------------------------------------------------------------ */

static bool is_freed(const struct qcow2_edit *edit, uint64_t cluster)
{
    return edit->freed[cluster / 8] >> (cluster % 8) & 1;
}

static void mark_changed(struct qcow2_edit *edit, uint64_t cluster)
{
    uint8_t *block = &edit->blocks[block_of(edit, cluster)];
    if (*block == QCOW2_BLOCK_SAME)
        *block = QCOW2_BLOCK_CHANGED;
}

uint64_t qcow2_edit_references(const struct qcow2_edit *edit, uint64_t offset)
{
    uint64_t cluster = offset >> geometry_of(edit)->cluster_bits;
    return cluster < edit->check.tally.clusters ? qcow2_tally_count(&edit->check.tally, cluster) : 0;
}

int qcow2_edit_reference(struct qcow2_edit *edit, uint64_t cluster, enum qcow2_use use, struct imgtk_error *err)
{
    unsigned order = geometry_of(edit)->refcount_order;
    if (cluster >= edit->check.tally.clusters)
        return imgtk_fail(err, IMGTK_ECORRUPT, "cluster %" PRIu64 " is beyond the end of the file", cluster);
    uint64_t count = qcow2_tally_count(&edit->check.tally, cluster);
    if (count >= qcow2_refcount_max(order) || count >= INT32_MAX / 4)
        return imgtk_fail(err, IMGTK_ELIMIT, "refcounts of %u bits cannot count %" PRIu64 " uses of a cluster",
                          1u << order, count + 1);
    mark_changed(edit, cluster);
    return qcow2_tally_add(&edit->check.tally, cluster, 1, use, err);
}

int qcow2_edit_release(struct qcow2_edit *edit, uint64_t cluster, struct imgtk_error *err)
{
    if (cluster >= edit->check.tally.clusters || qcow2_tally_count(&edit->check.tally, cluster) == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "cluster %" PRIu64 " is referenced, but not in use", cluster);
    qcow2_tally_subtract(&edit->check.tally, cluster);
    mark_changed(edit, cluster);
    if (qcow2_tally_count(&edit->check.tally, cluster) == 0)
        edit->freed[cluster / 8] |= (uint8_t)(1u << (cluster % 8));
    return 0;
}

int qcow2_edit_release_range(struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    unsigned bits = geometry_of(edit)->cluster_bits;
    int status = 0;
    for (uint64_t i = offset >> bits; length > 0 && i <= (offset + length - 1) >> bits && status == 0; i++)
        status = qcow2_edit_release(edit, i, err);
    return status;
}

/* ---- Allocation ------------------------------------------------------------------- */

static bool is_free(const struct qcow2_edit *edit, uint64_t cluster)
{
    return cluster >= edit->check.tally.clusters ||
           (qcow2_tally_count(&edit->check.tally, cluster) == 0 && !is_freed(edit, cluster));
}

static uint64_t find_run(const struct qcow2_edit *edit, uint64_t first, uint64_t count)
{
    uint64_t length = 0;
    while (length < count) {
        if (is_free(edit, first + length)) {
            length++;
        } else {
            first += length + 1;
            length = 0;
        }
    }
    return first;
}

/*
 * Nothing becomes free before the commit, so that a search can go on where the last one for such a length has ended;
 * what was too short for that one is left to shorter runs. Else each of many runs would look through the whole file.
 */
static uint64_t *next_of(struct qcow2_edit *edit, uint64_t count)
{
    uint64_t *next = edit->next;
    for (; count > 1; count /= 2)
        next++;
    return next;
}

int qcow2_edit_allocate(struct qcow2_edit *edit, uint64_t count, enum qcow2_use use, uint64_t *offset,
                        struct imgtk_error *err)
{
    uint64_t *next = next_of(edit, count), start = *next > edit->next[0] ? *next : edit->next[0];
    uint64_t first = find_run(edit, start, count);
    int status = reserve(edit, first + count, err);
    for (uint64_t i = 0; i < count && status == 0; i++)
        status = qcow2_edit_reference(edit, first + i, use, err);
    if (status != 0)
        return status;
    if (first == edit->next[0])
        edit->next[0] = first + count;
    *next = first + count;
    *offset = first << geometry_of(edit)->cluster_bits;
    return 0;
}

/* ---- Refcount blocks and table ------------------------------------------------------ */

/* A table that holds `blocks` entries at least. */
static int grow_table(struct qcow2_edit *edit, uint64_t blocks, struct imgtk_error *err)
{
    struct qcow2_check_state *check = &edit->check;
    unsigned bits = geometry_of(edit)->cluster_bits;
    uint64_t clusters = qcow2_clusters(geometry_of(edit), blocks * 8);
    if (clusters << bits > QCOW2_MAX_REFCOUNT_TABLE_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT, "refcount table of %" PRIu64 " bytes is above the limit of %" PRIu64,
                          clusters << bits, QCOW2_MAX_REFCOUNT_TABLE_BYTES);
    uint64_t *table = realloc(check->refcount_table, (size_t)(clusters << bits));
    if (!table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount table");
    uint64_t entries = (clusters << bits) / 8;
    for (uint64_t i = check->refcount_blocks; i < entries; i++)
        table[i] = 0;
    check->refcount_table = table;
    check->refcount_blocks = entries;
    return 0;
}

static int place_table(struct qcow2_edit *edit, struct imgtk_error *err)
{
    unsigned bits = geometry_of(edit)->cluster_bits;
    uint32_t clusters = (uint32_t)(edit->check.refcount_blocks * 8 >> bits);
    if (edit->table_placed && edit->table_clusters == clusters)
        return 0;
    int status = qcow2_edit_release_range(edit, edit->table_offset, (uint64_t)edit->table_clusters << bits, err);
    if (status == 0)
        status = qcow2_edit_allocate(edit, clusters, QCOW2_USE_ALONE, &edit->table_offset, err);
    edit->table_clusters = clusters;
    edit->table_placed = true;
    return status;
}

static bool is_block_empty(const struct qcow2_edit *edit, uint64_t index)
{
    unsigned bits = geometry_of(edit)->refcount_block_bits;
    uint64_t end = imgtk_min_u64((index + 1) << bits, edit->check.tally.clusters);
    for (uint64_t cluster = index << bits; cluster < end; cluster++)
        if (qcow2_tally_count(&edit->check.tally, cluster) != 0)
            return false;
    return true;
}

/* A new place for the block, or none when it counts nothing any more; it may count itself. */
static int place_block(struct qcow2_edit *edit, uint64_t index, struct imgtk_error *err)
{
    int status = index >= edit->check.refcount_blocks ? grow_table(edit, index + 1, err) : 0;
    if (status != 0)
        return status;
    uint64_t *entry = &edit->check.refcount_table[index];
    edit->blocks[index] = QCOW2_BLOCK_PLACED;
    if (*entry != 0)
        status = qcow2_edit_release(edit, *entry >> geometry_of(edit)->cluster_bits, err);
    *entry = 0;
    if (status != 0 || is_block_empty(edit, index))
        return status;
    return qcow2_edit_allocate(edit, 1, QCOW2_USE_ALONE, entry, err);
}

/* Placing one block changes the counts in others, and more blocks may need a larger table: until nothing is left. */
static int place_all(struct qcow2_edit *edit, struct imgtk_error *err)
{
    int status = place_table(edit, err);
    for (bool again = true; again && status == 0;) {
        again = false;
        for (uint64_t i = 0; i < edit->block_room && status == 0; i++) {
            /* One that was left out as empty may have got something to count since. */
            bool missing = edit->blocks[i] == QCOW2_BLOCK_PLACED && edit->check.refcount_table[i] == 0 &&
                           !is_block_empty(edit, i);
            if (edit->blocks[i] != QCOW2_BLOCK_CHANGED && !missing)
                continue;
            status = place_block(edit, i, err);
            again = true;
        }
        if (status == 0)
            status = place_table(edit, err);
    }
    return status;
}

static int write_block(struct qcow2_edit *edit, uint64_t index, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t first = index << geometry->refcount_block_bits;
    uint64_t end = imgtk_min_u64((index + 1) << geometry->refcount_block_bits, edit->check.tally.clusters);
    uint64_t max = qcow2_refcount_max(geometry->refcount_order); /* a repair may find more references */
    memset(edit->cluster, 0, (size_t)geometry->cluster_size);
    for (uint64_t cluster = first; cluster < end; cluster++)
        qcow2_refcount_put(edit->cluster, cluster - first, geometry->refcount_order,
                           imgtk_min_u64(qcow2_tally_count(&edit->check.tally, cluster), max));
    return imgtk_storage_pwrite(edit->image->file, edit->cluster, (size_t)geometry->cluster_size,
                                edit->check.refcount_table[index], err);
}

static int write_table(struct qcow2_edit *edit, struct imgtk_error *err)
{
    size_t bytes = (size_t)edit->check.refcount_blocks * 8;
    uint8_t *table = malloc(bytes);
    if (!table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount table of %zu bytes", bytes);
    for (uint64_t i = 0; i < edit->check.refcount_blocks; i++)
        imgtk_put_be64(table + i * 8, edit->check.refcount_table[i]);
    int status = imgtk_storage_pwrite(edit->image->file, table, bytes, edit->table_offset, err);
    free(table);
    return status;
}

static bool has_block(const struct qcow2_edit *edit, uint64_t index)
{
    return index < edit->check.refcount_blocks && edit->check.refcount_table[index] != 0;
}

/* A count that has no place needs none only where it is zero. */
static int is_block_wrong(struct qcow2_edit *edit, uint64_t index, bool *out, struct imgtk_error *err)
{
    struct qcow2_check_state *check = &edit->check;
    uint64_t first, end, refcount = 0;
    int status = 0;
    *out = false;
    if (!qcow2_refcount_span(check, index, &first, &end))
        return 0;
    if (!has_block(edit, index) && qcow2_tally_is_blank(&check->tally, first, end))
        return 0;
    for (uint64_t cluster = first; cluster < end && status == 0 && !*out; cluster++) {
        status = qcow2_refcount_of(check, &check->own, cluster, &refcount, err);
        *out = status == 0 && refcount != qcow2_tally_count(&check->tally, cluster);
    }
    return status;
}

int qcow2_edit_mark_wrong_refcounts(struct qcow2_edit *edit, struct imgtk_error *err)
{
    bool wrong = false;
    int status = 0;
    for (uint64_t i = 0; i < edit->block_room && status == 0; i++) {
        status = is_block_wrong(edit, i, &wrong, err);
        if (wrong)
            edit->blocks[i] = QCOW2_BLOCK_CHANGED;
    }
    return status;
}

static bool has_changed(const struct qcow2_edit *edit)
{
    for (uint64_t i = 0; i < edit->block_room; i++)
        if (edit->blocks[i] != QCOW2_BLOCK_SAME)
            return true;
    return false;
}

int qcow2_edit_write_refcounts(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (!has_changed(edit))
        return 0;
    int status = place_all(edit, err);
    for (uint64_t i = 0; i < edit->block_room && status == 0; i++)
        if (edit->blocks[i] == QCOW2_BLOCK_PLACED && edit->check.refcount_table[i] != 0)
            status = write_block(edit, i, err);
    return status == 0 ? write_table(edit, err) : status;
}

/* ---- After a commit --------------------------------------------------------------------- */

int qcow2_edit_clusters_settle(struct qcow2_edit *edit, struct imgtk_error *err)
{
    struct qcow2_tally *tally = &edit->check.tally;
    uint64_t end = tally->clusters, size, needed;
    free(edit->freed);
    edit->freed = calloc(1, (size_t)(tally->clusters / 8 + 1));
    if (!edit->freed)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the state of clusters");
    memset(edit->blocks, QCOW2_BLOCK_SAME, (size_t)edit->block_room);
    edit->table_placed = false;
    memset(edit->next, 0, sizeof(edit->next));
    while (end > 0 && qcow2_tally_count(tally, end - 1) == 0)
        end--;
    needed = end << geometry_of(edit)->cluster_bits;
    int status = imgtk_storage_size(edit->image->file, &size, err);
    if (status == 0 && size > needed && !(imgtk_storage_flags(edit->image->file) & IMGTK_STORAGE_FIXED_SIZE))
        imgtk_storage_truncate(edit->image->file, needed, NULL); /* if not: waste, and nothing more */
    return status;
}

void qcow2_edit_move_refcounts(struct qcow2_edit *edit)
{
    for (uint64_t i = 0; i < edit->check.refcount_blocks && i < edit->block_room; i++)
        edit->blocks[i] = QCOW2_BLOCK_CHANGED;
}
