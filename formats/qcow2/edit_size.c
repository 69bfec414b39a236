/* The virtual size of an image that is edited. */
#include <inttypes.h>
#include <stdlib.h>

#include "edit.h"

enum { SECTOR = 512 }; /* QEMU counts disks in them */

static int check_size(struct qcow2_edit *edit, uint64_t size, struct imgtk_error *err)
{
    const struct qcow2_header *header = &edit->image->header;
    if (size % SECTOR != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "The new size must be a multiple of %d", SECTOR);
    if (size > QCOW2_MAX_SIZE - SECTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "virtual size %" PRIu64 " is above the limit of %" PRId64 " bytes", size,
                          QCOW2_MAX_SIZE - SECTOR);
    if (qcow2_l1_entries(&edit->image->geometry, size) > QCOW2_MAX_L1_BYTES / 8)
        return imgtk_fail(err, IMGTK_ELIMIT, "a disk of %" PRIu64 " bytes needs an L1 table above the limit of %" PRIu64
                                             " bytes: convert it to a larger cluster size", size, QCOW2_MAX_L1_BYTES);
    /* Its snapshots need not record the size of their disk, which is the image's then. */
    if (header->version < 3 && header->snapshot_count > 0)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "an image of version 2 that has snapshots cannot be resized");
    return 0;
}

/* Whether the L1 table can go on behind its end: within its last cluster, where nothing but zeroes is. */
static int fits_in_place(struct qcow2_edit *edit, uint64_t entries, bool *out, struct imgtk_error *err)
{
    const struct qcow2_header *header = &edit->image->header;
    uint64_t used = (uint64_t)header->l1_size * 8, wanted = entries * 8;
    size_t length = wanted > used ? (size_t)(wanted - used) : 0, done;
    *out = edit->l1_entries == header->l1_size && wanted <= imgtk_round_up(used, edit->image->geometry.cluster_size);
    if (!*out || length == 0)
        return 0;
    int status = imgtk_storage_pread_some(edit->image->file, edit->cluster, length, header->l1_offset + used, &done,
                                          err);
    *out = status == 0 && done == length;
    for (size_t i = 0; i < length && *out; i++)
        *out = edit->cluster[i] == 0;
    return status;
}

static int set_l1_entries(struct qcow2_edit *edit, uint64_t entries, struct imgtk_error *err)
{
    bool in_place, changed = edit->l1_changed;
    int status = fits_in_place(edit, entries, &in_place, err);
    if (status == 0 && !in_place)
        status = qcow2_edit_count(edit, err);
    if (status == 0)
        status = qcow2_edit_l1_resize(edit, entries, err);
    if (status == 0 && in_place) {
        edit->l1_changed = changed;
        imgtk_put_be32(edit->head + QCOW2_AT_L1_SIZE, (uint32_t)entries);
    }
    return status;
}

/* What lies behind the end of the smaller disk must not be there when the larger one is read. */
static int drop_beyond(struct qcow2_edit *edit, uint64_t size, struct imgtk_error *err)
{
    uint64_t end = imgtk_round_up(imgtk_min_u64(size, edit->size), edit->image->geometry.cluster_size);
    bool holds = false;
    int status = edit->image->geometry.extended_l2 ? qcow2_edit_cut(edit, imgtk_min_u64(size, edit->size), err) : 0;
    if (status == 0)
        status = qcow2_edit_holds(edit, end, &holds, err);
    if (status != 0 || !holds)
        return status;
    edit->compact = true;
    status = qcow2_edit_count(edit, err);
    if (status == 0)
        status = qcow2_edit_drop(edit, end, err);
    uint64_t entries = qcow2_l1_entries(&edit->image->geometry, size);
    return status == 0 && entries < edit->l1_entries ? qcow2_edit_l1_resize(edit, entries, err) : status;
}

/* What a raw data file holds is only read where an entry says so, whoever has written it. */
static int grow_raw_data(struct qcow2_edit *edit, uint64_t old_size, struct imgtk_error *err)
{
    int status = imgtk_storage_truncate(edit->image->data_file, edit->size, err);
    return status == 0 ? qcow2_edit_allocate_behind(edit->image, old_size, IMGTK_ALLOCATE_METADATA, err) : status;
}

int qcow2_edit_resize(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    uint64_t entries, old_size = edit->size;
    int status = check_size(edit, size, err);
    if (status == 0 && qcow2_edit_raw_data(edit))
        status = qcow2_edit_need_data(edit, err);
    if (status != 0)
        return status;
    entries = qcow2_l1_entries(&edit->image->geometry, size);
    status = qcow2_edit_bitmaps_resize(edit, size, err);
    if (status == 0)
        status = drop_beyond(edit, size, err);
    if (status == 0 && entries > edit->l1_entries)
        status = set_l1_entries(edit, entries, err);
    if (status != 0)
        return status;
    edit->size = size;
    return qcow2_edit_raw_data(edit) && size > old_size ? grow_raw_data(edit, old_size, err) : 0;
}
