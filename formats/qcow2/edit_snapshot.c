/* Creating, applying and deleting internal snapshots. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"

enum { MAX_NAME = 255, MAX_ID = 24 };

/* ---- The table of snapshots --------------------------------------------------- */

/* The new table, entry by entry as the old one has them. */
struct table {
    struct qcow2_edit *edit;
    uint8_t *bytes;
    size_t used, room;
    uint32_t count;
    uint64_t left_out;     /* offset of the entry that is deleted; 0: none */
    uint64_t greatest_id;
};

static int make_room(struct table *table, size_t length, struct imgtk_error *err)
{
    size_t room = table->used + length;
    if (room > QCOW2_MAX_SNAPSHOTS_BYTES || table->count == QCOW2_MAX_SNAPSHOTS)
        return imgtk_fail(err, IMGTK_ELIMIT, "no room for another snapshot: limits are %u and %" PRIu64 " bytes",
                          QCOW2_MAX_SNAPSHOTS, QCOW2_MAX_SNAPSHOTS_BYTES);
    if (room <= table->room)
        return 0;
    uint8_t *bytes = realloc(table->bytes, room * 2);
    if (!bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the table of snapshots");
    table->bytes = bytes;
    table->room = room * 2;
    return 0;
}

static int copy_entry(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    struct table *table = context;
    uint64_t id = strtoull(snapshot->id, NULL, 10);
    if (id > table->greatest_id)
        table->greatest_id = id;
    if (snapshot->offset == table->left_out)
        return 0;
    size_t length = (size_t)imgtk_round_up(snapshot->length, 8);
    int status = make_room(table, length, err);
    if (status == 0)
        status = imgtk_storage_pread(table->edit->image->file, table->bytes + table->used, (size_t)snapshot->length,
                                     snapshot->offset, err);
    if (status != 0)
        return status;
    memset(table->bytes + table->used + snapshot->length, 0, length - (size_t)snapshot->length);
    table->used += length;
    table->count++;
    return 0;
}

static int add_entry(struct table *table, const struct imgtk_snapshot_change *change, uint64_t l1_offset,
                     struct imgtk_error *err)
{
    char id[MAX_ID];
    size_t id_length = (size_t)snprintf(id, sizeof(id), "%" PRIu64, table->greatest_id + 1);
    size_t name_length = strlen(change->name);
    size_t length = QCOW2_SNAPSHOT_ENTRY + QCOW2_SNAPSHOT_EXTRA_LENGTH + id_length + name_length;
    int status = make_room(table, length + 8, err);
    if (status != 0)
        return status;
    uint8_t *entry = table->bytes + table->used, *extra = entry + QCOW2_SNAPSHOT_ENTRY;
    memset(entry, 0, length + 8);
    imgtk_put_be64(entry + QCOW2_SNAPSHOT_AT_L1_OFFSET, l1_offset);
    imgtk_put_be32(entry + QCOW2_SNAPSHOT_AT_L1_SIZE, (uint32_t)table->edit->l1_entries);
    imgtk_put_be16(entry + QCOW2_SNAPSHOT_AT_ID_LENGTH, (uint16_t)id_length);
    imgtk_put_be16(entry + QCOW2_SNAPSHOT_AT_NAME_LENGTH, (uint16_t)name_length);
    imgtk_put_be32(entry + QCOW2_SNAPSHOT_AT_DATE_SEC, change->date_sec);
    imgtk_put_be32(entry + QCOW2_SNAPSHOT_AT_DATE_NSEC, change->date_nsec);
    imgtk_put_be32(entry + QCOW2_SNAPSHOT_AT_EXTRA_LENGTH, QCOW2_SNAPSHOT_EXTRA_LENGTH);
    imgtk_put_be64(extra + QCOW2_SNAPSHOT_EXTRA_DISK_SIZE, table->edit->size);
    imgtk_put_be64(extra + QCOW2_SNAPSHOT_EXTRA_ICOUNT, UINT64_MAX); /* not known */
    memcpy(extra + QCOW2_SNAPSHOT_EXTRA_LENGTH, id, id_length);
    memcpy(extra + QCOW2_SNAPSHOT_EXTRA_LENGTH + id_length, change->name, name_length);
    table->used += (size_t)imgtk_round_up(length, 8);
    table->count++;
    return 0;
}

static int place_table(struct table *table, uint64_t old_length, struct imgtk_error *err)
{
    struct qcow2_edit *edit = table->edit;
    const struct qcow2_header *header = &edit->image->header;
    uint64_t offset = 0;
    int status = qcow2_edit_release_range(edit, header->snapshots_offset, old_length, err);
    if (status == 0 && table->used > 0)
        status = qcow2_edit_allocate(edit, qcow2_clusters(&edit->image->geometry, table->used), QCOW2_USE_ALONE,
                                     &offset, err);
    if (status == 0 && table->used > 0)
        status = imgtk_storage_pwrite(edit->image->file, table->bytes, table->used, offset, err);
    imgtk_put_be32(edit->head + QCOW2_AT_SNAPSHOT_COUNT, table->count);
    imgtk_put_be64(edit->head + QCOW2_AT_SNAPSHOTS_OFFSET, offset);
    return status;
}

/* The table without the entry at `left_out`, and with that of `change` (NULL: none). */
static int rewrite_table(struct qcow2_edit *edit, uint64_t left_out, const struct imgtk_snapshot_change *change,
                         uint64_t l1_offset, struct imgtk_error *err)
{
    struct table table = { .edit = edit, .left_out = left_out };
    uint64_t start = edit->image->header.snapshots_offset, end = start;
    int status = qcow2_snapshots_walk(edit->image, copy_entry, &table, &end, err);
    if (status == 0 && change)
        status = add_entry(&table, change, l1_offset, err);
    if (status == 0)
        status = place_table(&table, edit->image->header.snapshot_count > 0 ? end - start : 0, err);
    free(table.bytes);
    return status;
}

/* ---- L1 tables of snapshots ------------------------------------------------------- */

static int load_l1(struct qcow2_edit *edit, const struct qcow2_snapshot *snapshot, uint64_t **out,
                   struct imgtk_error *err)
{
    size_t bytes = (size_t)snapshot->l1_size * 8; /* within the file: validated */
    uint64_t *l1 = malloc(bytes + 8);
    *out = l1;
    if (!l1)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table of %zu bytes", bytes);
    int status = bytes ? imgtk_storage_pread(edit->image->file, l1, bytes, snapshot->l1_offset, err) : 0;
    for (uint32_t i = 0; i < snapshot->l1_size && status == 0; i++)
        l1[i] = imgtk_be64(&l1[i]);
    return status;
}

/* The active table as it is now, for the snapshot to have. */
static int save_l1(struct qcow2_edit *edit, uint64_t *offset, struct imgtk_error *err)
{
    uint64_t bytes = edit->l1_entries * 8;
    *offset = 0;
    if (bytes == 0)
        return 0;
    int status = qcow2_edit_allocate(edit, qcow2_clusters(&edit->image->geometry, bytes), QCOW2_USE_ALONE, offset, err);
    uint8_t *table = status == 0 ? malloc((size_t)bytes) : NULL;
    if (status == 0 && !table)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table of %" PRIu64 " bytes", bytes);
    for (uint64_t i = 0; i < edit->l1_entries && status == 0; i++)
        imgtk_put_be64(table + i * 8, edit->l1[i]);
    if (status == 0)
        status = imgtk_storage_pwrite(edit->image->file, table, (size_t)bytes, *offset, err);
    free(table);
    return status;
}

/* ---- The changes --------------------------------------------------------------------- */

/* Each table and cluster gets a second user, so no flag may say that there is one; the flags are changed in copies. */
static int create(struct qcow2_edit *edit, const struct imgtk_snapshot_change *change, struct imgtk_error *err)
{
    uint64_t l1_offset = 0;
    if (strlen(change->name) > MAX_NAME)
        return imgtk_fail(err, IMGTK_ELIMIT, "snapshot name of %zu bytes is above the limit of %d",
                          strlen(change->name), MAX_NAME);
    int status = qcow2_edit_clear_flags(edit, err);
    if (status == 0)
        status = qcow2_edit_count_tree(edit, edit->l1, edit->l1_entries, true, err);
    if (status == 0)
        status = save_l1(edit, &l1_offset, err);
    return status == 0 ? rewrite_table(edit, 0, change, l1_offset, err) : status;
}

/* The snapshot's tables become the active ones as well. */
static int apply(struct qcow2_edit *edit, const struct qcow2_snapshot *snapshot, const uint64_t *l1,
                 struct imgtk_error *err)
{
    int status = qcow2_edit_bitmaps_resize(edit, snapshot->disk_size, err);
    if (status == 0)
        status = qcow2_edit_bitmaps_record(edit, 0, snapshot->disk_size, err);
    if (status == 0)
        status = qcow2_edit_drop(edit, 0, err);
    if (status == 0)
        status = qcow2_edit_count_tree(edit, l1, snapshot->l1_size, true, err);
    if (status == 0)
        status = qcow2_edit_l1_resize(edit, snapshot->l1_size, err);
    if (status != 0)
        return status;
    memcpy(edit->l1, l1, (size_t)snapshot->l1_size * 8);
    edit->size = snapshot->disk_size;
    return qcow2_edit_set_flags(edit, err);
}

static int delete(struct qcow2_edit *edit, const struct qcow2_snapshot *snapshot, const uint64_t *l1,
                  struct imgtk_error *err)
{
    int status = qcow2_edit_count_tree(edit, l1, snapshot->l1_size, false, err);
    if (status == 0)
        status = qcow2_edit_release_range(edit, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8, err);
    if (status == 0)
        status = qcow2_edit_set_flags(edit, err);
    return status == 0 ? rewrite_table(edit, snapshot->offset, NULL, 0, err) : status;
}

static int change_existing(struct qcow2_edit *edit, const struct imgtk_snapshot_change *change, struct imgtk_error *err)
{
    struct qcow2_snapshot snapshot;
    uint64_t *l1 = NULL;
    int status = qcow2_snapshot_find(edit->image, change->name, &snapshot, err);
    if (status == 0)
        status = qcow2_snapshot_validate(edit->image, &snapshot, err);
    if (status == 0)
        status = load_l1(edit, &snapshot, &l1, err);
    if (status == 0 && change->action == IMGTK_SNAPSHOT_APPLY)
        status = apply(edit, &snapshot, l1, err);
    else if (status == 0)
        status = delete(edit, &snapshot, l1, err);
    free(l1);
    return status;
}

int qcow2_edit_snapshot(void *handle, const struct imgtk_snapshot_change *change, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    if (!qcow2_edit_inside(edit))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "an image with an external data file cannot have snapshots");
    int status = qcow2_edit_count(edit, err);
    if (status != 0)
        return status;
    return change->action == IMGTK_SNAPSHOT_CREATE ? create(edit, change, err) : change_existing(edit, change, err);
}
