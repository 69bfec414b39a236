/* Editing an image: its beginning, and the commit that makes the changes the image's. */
#include "edit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct qcow2_edit *qcow2_edit_of(void *handle)
{
    return ((struct qcow2 *)handle)->edit;
}

static void ignore_report(void *context, const char *message)
{
    (void)context, (void)message;
}

/* ---- Beginning -------------------------------------------------------------------- */

static int refuse(const struct qcow2 *image, struct imgtk_error *err)
{
    if (!image->writable)
        return imgtk_fail(err, IMGTK_EINVAL, "the image is open for reading only");
    if (image->is_snapshot)
        return imgtk_fail(err, IMGTK_EINVAL, "a snapshot cannot be changed");
    if (image->header.incompatible & QCOW2_INCOMPAT_CORRUPT)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the image is marked as corrupt: repair it with check -r all first");
    return 0;
}

/* Whoever crashed with the dirty bit set left refcounts that may be wrong; everything else is right. */
static int repair_dirty(struct qcow2 *image, struct imgtk_error *err)
{
    struct imgtk_check check = { .repair = IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS, .workers = 1,
                                 .report = ignore_report };
    if (!(image->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    int status = qcow2_check(image, &check, err);
    return status == 0 ? qcow2_reload(image, err) : status;
}

static int load_head(struct qcow2_edit *edit, struct imgtk_error *err)
{
    size_t size = (size_t)edit->image->geometry.cluster_size, done;
    edit->head = calloc(1, size);
    edit->head_on_disk = malloc(size);
    if (!edit->head || !edit->head_on_disk)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a header");
    int status = imgtk_storage_pread_some(edit->image->file, edit->head, size, 0, &done, err);
    memcpy(edit->head_on_disk, edit->head, size);
    return status;
}

static int edit_new(struct qcow2 *image, struct imgtk_error *err)
{
    struct qcow2_edit *edit = calloc(1, sizeof(*edit));
    if (!edit)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    image->edit = edit;
    edit->image = image;
    edit->size = image->size;
    int status = imgtk_storage_size(image->file, &edit->file_size, err);
    if (status == 0)
        status = load_head(edit, err);
    return status == 0 ? qcow2_edit_tables_open(edit, err) : status;
}

/* An earlier edit that was begun and not committed. */
static int give_up(struct qcow2 *image, struct imgtk_error *err)
{
    if (!image->edit || image->edit->settled)
        return 0;
    qcow2_edit_free(image->edit);
    image->edit = NULL;
    return qcow2_reload(image, err);
}

int qcow2_edit_begin(void *handle, struct imgtk_edit *args, struct imgtk_error *err)
{
    struct qcow2 *image = handle;
    int status = refuse(image, err);
    if (status == 0)
        status = give_up(image, err);
    if (status == 0)
        status = repair_dirty(image, err);
    if (status == 0 && !image->edit)
        status = edit_new(image, err);
    if (status != 0)
        return status;
    image->edit->settled = false;
    image->edit->same_disk = args->same_disk;
    args->unit = UINT32_C(1) << image->geometry.subcluster_bits;
    return 0;
}

int qcow2_edit_need_data(const struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (edit->image->data_file)
        return 0;
    return imgtk_fail(err, IMGTK_EREFUSED, "the external data file '%s' was not opened",
                      edit->image->extensions.data_file);
}

/* Blocks that change get right counts, which the flags must follow: so all blocks do, and all flags. */
static int heal_leaks(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (edit->result.leaks == 0)
        return 0;
    int status = qcow2_edit_mark_wrong_refcounts(edit, err);
    return status == 0 ? qcow2_edit_set_flags(edit, err) : status;
}

int qcow2_edit_count(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (edit->counted)
        return 0;
    edit->result = (struct imgtk_check){ .workers = 1, .report = ignore_report };
    int status = qcow2_check_open(&edit->check, edit->image, &edit->result, err);
    edit->checked = true;
    if (status == 0)
        status = qcow2_check_count(&edit->check, err);
    if (status == 0)
        status = qcow2_check_flags(&edit->check, false, err);
    if (status == 0 && edit->result.corruptions > 0)
        status = imgtk_fail(err, IMGTK_ECORRUPT, "the image has %" PRIu64 " errors: repair it with check -r all first",
                            edit->result.corruptions);
    if (status == 0)
        status = qcow2_edit_clusters_open(edit, err);
    edit->counted = status == 0;
    return status == 0 ? heal_leaks(edit, err) : status;
}

void qcow2_edit_free(struct qcow2_edit *edit)
{
    uint64_t size;
    if (!edit)
        return;
    bool grown = imgtk_storage_size(edit->image->file, &size, NULL) == 0 && size > edit->file_size;
    if (grown && !edit->committing && !(imgtk_storage_flags(edit->image->file) & IMGTK_STORAGE_FIXED_SIZE))
        imgtk_storage_truncate(edit->image->file, edit->file_size, NULL); /* if not: waste, and nothing more */
    if (edit->checked)
        qcow2_check_close(&edit->check);
    qcow2_edit_bitmaps_free(edit);
    free(edit->head);
    free(edit->head_on_disk);
    free(edit->freed);
    free(edit->blocks);
    free(edit->l1);
    free(edit->placed);
    free(edit->l2);
    free(edit->cluster);
    free(edit);
}

/* ---- Committing ---------------------------------------------------------------------- */

static int flush_all(const struct qcow2 *image, struct imgtk_error *err)
{
    bool outside = image->data_file && image->data_file != image->file;
    int status = outside ? imgtk_storage_flush(image->data_file, err) : 0;
    return status == 0 ? imgtk_storage_flush(image->file, err) : status;
}

/* The tables at their new places, which nothing refers to yet. */
static int write_tables(struct qcow2_edit *edit, struct imgtk_error *err)
{
    int status = qcow2_edit_write_l2(edit, err);
    if (status == 0)
        status = qcow2_edit_write_l1(edit, err);
    if (status == 0)
        status = qcow2_edit_bitmaps_write(edit, err);
    return status == 0 ? qcow2_edit_write_refcounts(edit, err) : status;
}

/* The image is the new one now: what is known of the old one is forgotten. */
static int settle(struct qcow2_edit *edit, struct imgtk_error *err)
{
    memcpy(edit->head_on_disk, edit->head, (size_t)edit->image->geometry.cluster_size);
    memset(edit->placed, 0, (size_t)edit->l1_entries / 8 + 1);
    edit->l1_changed = false;
    qcow2_edit_bitmaps_free(edit);
    int status = qcow2_reload(edit->image, err);
    if (status == 0 && edit->counted)
        status = qcow2_edit_clusters_settle(edit, err);
    if (status == 0)
        status = imgtk_storage_size(edit->image->file, &edit->file_size, err);
    edit->committing = status != 0;
    edit->settled = status == 0;
    return status;
}

static int commit(struct qcow2_edit *edit, struct imgtk_error *err)
{
    int status = edit->counted ? write_tables(edit, err) : 0;
    if (status == 0)
        status = flush_all(edit->image, err);
    if (status != 0)
        return status;
    edit->committing = true;
    status = qcow2_edit_write_header(edit, err);
    if (status == 0)
        status = imgtk_storage_flush(edit->image->file, err);
    return status == 0 ? settle(edit, err) : status;
}

/* Once more, to places that are free since the commit. */
static int move_tables(struct qcow2_edit *edit, bool l1, struct imgtk_error *err)
{
    edit->l1_changed = l1;
    qcow2_edit_move_refcounts(edit);
    return commit(edit, err);
}

static uint64_t clusters_in_use(const struct qcow2_edit *edit)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < edit->check.tally.clusters; i++)
        count += qcow2_tally_count(&edit->check.tally, i) != 0;
    return count;
}

/* Those that lie behind as many clusters as are in use have room before. */
static int move_l2_tables(struct qcow2_edit *edit, struct imgtk_error *err)
{
    uint64_t room = clusters_in_use(edit) << edit->image->geometry.cluster_bits;
    int status = 0;
    for (uint64_t i = 0; i < edit->l1_entries && status == 0; i++) {
        uint64_t offset = edit->l1[i] & QCOW2_OFFSET_MASK;
        if (offset < room || qcow2_edit_references(edit, offset) != 1)
            continue;
        status = qcow2_edit_select(edit, i, err);
        if (status == 0)
            status = qcow2_edit_touch(edit, err);
    }
    return status;
}

/* The new tables of an image that has lost much lie behind what it has lost: when they move, the file becomes short. */
static int compact(struct qcow2_edit *edit, struct imgtk_error *err)
{
    if (!edit->compact || !edit->counted)
        return 0;
    edit->compact = false;
    int status = move_l2_tables(edit, err);
    return status == 0 ? move_tables(edit, true, err) : status;
}

/* A raw data file has the size of the disk; a smaller one once nothing refers to what is cut off. */
static int shorten_data_file(const struct qcow2_edit *edit, struct imgtk_error *err)
{
    uint64_t size;
    if (!qcow2_edit_raw_data(edit) || !edit->image->data_file)
        return 0;
    int status = imgtk_storage_size(edit->image->data_file, &size, err);
    return status == 0 && size > edit->size ? imgtk_storage_truncate(edit->image->data_file, edit->size, err) : status;
}

/* ---- Repairing -------------------------------------------------------------------------- */

/* Blocks and tables that were right where they were go back there: the file becomes no longer. */
static int repair(struct qcow2_edit *edit, struct imgtk_error *err)
{
    int status = qcow2_edit_clusters_open(edit, err);
    if (status == 0)
        status = qcow2_edit_mark_wrong_refcounts(edit, err);
    if (status == 0)
        status = qcow2_edit_set_flags(edit, err);
    bool l1_changed = edit->l1_changed;
    if (status == 0)
        status = commit(edit, err);
    return status == 0 ? move_tables(edit, l1_changed, err) : status;
}

/* The references are those that the check has counted: its state is the edit's meanwhile. */
int qcow2_repair_rewrite(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    int status = edit_new(image, err);
    if (status == 0) {
        image->edit->check = *state;
        image->edit->counted = true;
        status = repair(image->edit, err);
        *state = image->edit->check;
    }
    qcow2_edit_free(image->edit);
    image->edit = NULL;
    return status;
}

int qcow2_edit_commit(void *handle, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    int status = commit(edit, err);
    if (status == 0)
        status = compact(edit, err);
    return status == 0 ? shorten_data_file(edit, err) : status;
}
