/* The L1 and L2 tables of an image that is edited: changed ones go to new places. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"

static const struct qcow2_geometry *geometry_of(const struct qcow2_edit *edit)
{
    return &edit->image->geometry;
}

/* ---- Bits and entries ---------------------------------------------------------- */

static bool is_placed(const struct qcow2_edit *edit, uint64_t index)
{
    return edit->placed[index / 8] >> (index % 8) & 1;
}

static uint64_t entry_at(const struct qcow2_edit *edit, uint64_t at)
{
    return imgtk_be64(edit->l2 + at);
}

/* The cluster that a plain entry has in the image itself; 0: none. */
static uint64_t host_inside(const struct qcow2_edit *edit, uint64_t entry)
{
    return (entry & QCOW2_COMPRESSED) || !qcow2_edit_inside(edit) ? 0 : entry & QCOW2_OFFSET_MASK;
}

/* ---- L1 --------------------------------------------------------------------------- */

int qcow2_edit_l1_resize(struct qcow2_edit *edit, uint64_t entries, struct imgtk_error *err)
{
    if (entries > QCOW2_MAX_L1_BYTES / 8)
        return imgtk_fail(err, IMGTK_ELIMIT, "L1 table of %" PRIu64 " entries is above the limit of %" PRIu64, entries,
                          QCOW2_MAX_L1_BYTES / 8);
    uint64_t *l1 = realloc(edit->l1, (size_t)(entries + 1) * 8);
    if (l1)
        edit->l1 = l1;
    uint8_t *placed = realloc(edit->placed, (size_t)entries / 8 + 1);
    if (placed)
        edit->placed = placed;
    if (!l1 || !placed)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table of %" PRIu64 " entries", entries);
    for (uint64_t i = edit->l1_entries; i < entries; i++) {
        l1[i] = 0;
        placed[i / 8] &= (uint8_t)~(1u << (i % 8));
    }
    edit->l1_entries = entries;
    edit->l1_changed = true;
    return 0;
}

/* All entries of the header's table, those behind the end of the disk included. */
int qcow2_edit_tables_open(struct qcow2_edit *edit, struct imgtk_error *err)
{
    const struct qcow2_header *header = &edit->image->header;
    size_t cluster_size = (size_t)geometry_of(edit)->cluster_size;
    edit->l2_index = UINT64_MAX;
    edit->l2_changed = false;
    edit->l1_entries = 0;
    int status = qcow2_edit_l1_resize(edit, header->l1_size, err);
    if (status == 0 && header->l1_size > 0)
        status = imgtk_storage_pread(edit->image->file, edit->l1, (size_t)header->l1_size * 8, header->l1_offset, err);
    for (uint64_t i = 0; i < edit->l1_entries && status == 0; i++)
        edit->l1[i] = imgtk_be64(&edit->l1[i]);
    edit->l1_changed = false;
    if (!edit->l2)
        edit->l2 = malloc(cluster_size);
    if (!edit->cluster)
        edit->cluster = malloc(cluster_size);
    if (status == 0 && (!edit->l2 || !edit->cluster))
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L2 table");
    return status;
}

int qcow2_edit_write_l1(struct qcow2_edit *edit, struct imgtk_error *err)
{
    const struct qcow2_header *header = &edit->image->header;
    uint64_t offset = 0, bytes = edit->l1_entries * 8, room = imgtk_round_up(bytes, geometry_of(edit)->cluster_size);
    if (!edit->l1_changed)
        return 0;
    int status = qcow2_edit_release_range(edit, header->l1_offset, (uint64_t)header->l1_size * 8, err);
    if (status == 0 && bytes > 0)
        status = qcow2_edit_allocate(edit, room >> geometry_of(edit)->cluster_bits, QCOW2_USE_ALONE, &offset, err);
    uint8_t *table = status == 0 ? calloc(1, (size_t)room + 1) : NULL;
    if (status == 0 && !table)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table");
    for (uint64_t i = 0; i < edit->l1_entries && status == 0; i++)
        imgtk_put_be64(table + i * 8, edit->l1[i]);
    if (status == 0 && bytes > 0)
        status = imgtk_storage_pwrite(edit->image->file, table, (size_t)room, offset, err);
    free(table);
    imgtk_put_be64(edit->head + QCOW2_AT_L1_OFFSET, offset);
    imgtk_put_be32(edit->head + QCOW2_AT_L1_SIZE, (uint32_t)edit->l1_entries);
    return status;
}

/* ---- L2 ------------------------------------------------------------------------------ */

int qcow2_edit_write_l2(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (!edit->l2_changed)
        return 0;
    edit->l2_changed = false;
    return imgtk_storage_pwrite(edit->image->file, edit->l2, (size_t)geometry_of(edit)->cluster_size,
                                edit->l1[edit->l2_index] & QCOW2_OFFSET_MASK, err);
}

int qcow2_edit_select(struct qcow2_edit *edit, uint64_t index, struct imgtk_error *err)
{
    size_t cluster_size = (size_t)geometry_of(edit)->cluster_size;
    if (edit->l2_index == index)
        return 0;
    int status = qcow2_edit_write_l2(edit, err);
    if (status != 0)
        return status;
    uint64_t offset = edit->l1[index] & QCOW2_OFFSET_MASK;
    edit->l2_index = UINT64_MAX;
    if (offset == 0)
        memset(edit->l2, 0, cluster_size);
    else
        status = imgtk_storage_pread(edit->image->file, edit->l2, cluster_size, offset, err);
    if (status == 0)
        edit->l2_index = index;
    return status;
}

int qcow2_edit_touch(struct qcow2_edit *edit, struct imgtk_error *err)
{
    uint64_t index = edit->l2_index, old = edit->l1[index] & QCOW2_OFFSET_MASK, offset;
    edit->l2_changed = true;
    if (is_placed(edit, index))
        return 0;
    int status = qcow2_edit_allocate(edit, 1, QCOW2_USE_L2, &offset, err);
    if (status == 0 && old != 0)
        status = qcow2_edit_release(edit, old >> geometry_of(edit)->cluster_bits, err);
    if (status != 0)
        return status;
    edit->l1[index] = offset | QCOW2_COPIED;
    edit->placed[index / 8] |= (uint8_t)(1u << (index % 8));
    edit->l1_changed = true;
    return 0;
}

/* ---- Counting ------------------------------------------------------------------------- */

static int count_range(struct qcow2_edit *edit, uint64_t offset, uint64_t length, bool add, struct imgtk_error *err)
{
    unsigned bits = geometry_of(edit)->cluster_bits;
    int status = 0;
    if (!add)
        return qcow2_edit_release_range(edit, offset, length, err);
    for (uint64_t i = offset >> bits; i <= (offset + length - 1) >> bits && status == 0; i++)
        status = qcow2_edit_reference(edit, i, QCOW2_USE_DATA, err);
    return status;
}

static int count_entry(struct qcow2_edit *edit, uint64_t entry, bool add, struct imgtk_error *err)
{
    if (entry & QCOW2_COMPRESSED) {
        struct qcow2_compressed stream = qcow2_compressed(geometry_of(edit), entry);
        return count_range(edit, stream.offset, stream.length, add, err);
    }
    uint64_t host = host_inside(edit, entry);
    return host == 0 ? 0 : count_range(edit, host, 1, add, err);
}

int qcow2_edit_release_entry(struct qcow2_edit *edit, uint64_t entry, struct imgtk_error *err)
{
    return count_entry(edit, entry, false, err);
}

static int count_table(struct qcow2_edit *edit, uint64_t offset, bool add, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t cluster = offset >> geometry->cluster_bits;
    int status = imgtk_storage_pread(edit->image->file, edit->cluster, (size_t)geometry->cluster_size, offset, err);
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes)
        status = count_entry(edit, imgtk_be64(edit->cluster + at), add, err);
    if (status != 0)
        return status;
    return add ? qcow2_edit_reference(edit, cluster, QCOW2_USE_L2, err) : qcow2_edit_release(edit, cluster, err);
}

int qcow2_edit_count_tree(struct qcow2_edit *edit, const uint64_t *l1, uint64_t entries, bool add,
                          struct imgtk_error *err)
{
    int status = qcow2_edit_write_l2(edit, err);
    for (uint64_t i = 0; i < entries && status == 0; i++)
        if (l1[i] & QCOW2_OFFSET_MASK)
            status = count_table(edit, l1[i] & QCOW2_OFFSET_MASK, add, err);
    return status;
}

/* ---- Flags ------------------------------------------------------------------------------- */

/* How an entry's flag has to be. */
typedef uint64_t (*flag_fn)(const struct qcow2_edit *edit, uint64_t entry, uint64_t cluster_offset);

static uint64_t flag_by_count(const struct qcow2_edit *edit, uint64_t entry, uint64_t cluster_offset)
{
    return qcow2_edit_references(edit, cluster_offset) == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
}

static uint64_t flag_never(const struct qcow2_edit *edit, uint64_t entry, uint64_t cluster_offset)
{
    (void)edit, (void)cluster_offset;
    return entry & ~QCOW2_COPIED;
}

static int change_l2_flags(struct qcow2_edit *edit, flag_fn flag, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    int status = 0;
    for (uint64_t at = 0; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes) {
        uint64_t entry = entry_at(edit, at), host = host_inside(edit, entry);
        uint64_t wanted = host != 0 ? flag(edit, entry, host) : entry;
        if (entry & QCOW2_COMPRESSED)
            wanted = entry & ~QCOW2_COPIED;
        else if (host == 0 && (entry & QCOW2_OFFSET_MASK) != 0) /* in an external data file, nothing is shared */
            wanted = entry | QCOW2_COPIED;
        if (entry == wanted)
            continue;
        status = qcow2_edit_touch(edit, err);
        imgtk_put_be64(edit->l2 + at, wanted);
    }
    return status;
}

static int change_flags(struct qcow2_edit *edit, flag_fn flag, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t i = 0; i < edit->l1_entries && status == 0; i++) {
        if ((edit->l1[i] & QCOW2_OFFSET_MASK) == 0) {
            edit->l1_changed |= (edit->l1[i] & QCOW2_COPIED) != 0;
            edit->l1[i] &= ~QCOW2_COPIED;
            continue;
        }
        status = qcow2_edit_select(edit, i, err);
        if (status == 0)
            status = change_l2_flags(edit, flag, err);
        uint64_t wanted = flag(edit, edit->l1[i], edit->l1[i] & QCOW2_OFFSET_MASK);
        edit->l1_changed |= wanted != edit->l1[i];
        edit->l1[i] = wanted;
    }
    return status == 0 ? qcow2_edit_write_l2(edit, err) : status;
}

int qcow2_edit_set_flags(struct qcow2_edit *edit, struct imgtk_error *err)
{
    return change_flags(edit, flag_by_count, err);
}

int qcow2_edit_clear_flags(struct qcow2_edit *edit, struct imgtk_error *err)
{
    return change_flags(edit, flag_never, err);
}

/* ---- Behind an offset ----------------------------------------------------------------------- */

/* The entries at and behind the offset: from that byte of the table of L1 entry *index on, and all tables after it. */
static uint64_t first_entry(const struct qcow2_edit *edit, uint64_t offset, uint64_t *index)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t cluster = offset >> geometry->cluster_bits;
    *index = cluster >> geometry->l2_bits;
    return (cluster & ((UINT64_C(1) << geometry->l2_bits) - 1)) * geometry->l2_entry_bytes;
}

/* Whether the table at hand has anything from that byte on. */
static bool holds_from(const struct qcow2_edit *edit, uint64_t at)
{
    for (; at < geometry_of(edit)->cluster_size; at += 8)
        if (entry_at(edit, at) != 0)
            return true;
    return false;
}

int qcow2_edit_holds(struct qcow2_edit *edit, uint64_t offset, bool *out, struct imgtk_error *err)
{
    uint64_t index, at = first_entry(edit, offset, &index);
    *out = false;
    for (uint64_t i = at == 0 ? index : index + 1; i < edit->l1_entries; i++)
        *out |= edit->l1[i] != 0;
    if (at == 0 || index >= edit->l1_entries || (edit->l1[index] & QCOW2_OFFSET_MASK) == 0)
        return 0;
    int status = qcow2_edit_select(edit, index, err);
    *out |= status == 0 && holds_from(edit, at);
    return status;
}

static int drop_entries(struct qcow2_edit *edit, uint64_t at, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    int status = holds_from(edit, at) ? qcow2_edit_touch(edit, err) : 0;
    for (; at < geometry->cluster_size && status == 0; at += geometry->l2_entry_bytes) {
        status = qcow2_edit_release_entry(edit, entry_at(edit, at), err);
        memset(edit->l2 + at, 0, geometry->l2_entry_bytes);
    }
    return status;
}

int qcow2_edit_drop(struct qcow2_edit *edit, uint64_t offset, struct imgtk_error *err)
{
    uint64_t index, at = first_entry(edit, offset, &index);
    int status = 0;
    if (at > 0 && index < edit->l1_entries && (edit->l1[index] & QCOW2_OFFSET_MASK) != 0) {
        status = qcow2_edit_select(edit, index, err);
        if (status == 0)
            status = drop_entries(edit, at, err);
    }
    uint64_t first = at > 0 ? index + 1 : index;
    if (status != 0 || first >= edit->l1_entries)
        return status;
    status = qcow2_edit_count_tree(edit, edit->l1 + first, edit->l1_entries - first, false, err);
    if (edit->l2_index != UINT64_MAX && edit->l2_index >= first)
        edit->l2_index = UINT64_MAX;
    for (uint64_t i = first; i < edit->l1_entries; i++) {
        edit->l1_changed |= edit->l1[i] != 0;
        edit->l1[i] = 0;
        edit->placed[i / 8] &= (uint8_t)~(1u << (i % 8));
    }
    return status;
}
