/* Writing and zeroing guest bytes of an image that is edited. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"
#include "writer.h"

#define ALL_SUBCLUSTERS UINT64_C(0xffffffff)

/* A part of one guest cluster; begins and ends at a unit, or at the end of the disk. */
struct part {
    uint64_t cluster;         /* guest cluster */
    uint64_t in_cluster;      /* bytes */
    uint64_t length;
    uint64_t visible;         /* bytes of the cluster that the disk has */
    const uint8_t *from;      /* what is written; NULL: zeroes */
    uint64_t entry, bitmap;   /* of the L2 table; bitmap: extended L2 */
};

static const struct qcow2_geometry *geometry_of(const struct qcow2_edit *edit)
{
    return &edit->image->geometry;
}

static bool is_whole(const struct part *part)
{
    return part->length == part->visible;
}

/* The bits of the part's subclusters. */
static uint64_t subclusters_of(const struct qcow2_edit *edit, const struct part *part)
{
    unsigned bits = geometry_of(edit)->subcluster_bits;
    uint64_t first = part->in_cluster >> bits;
    uint64_t end = (part->in_cluster + part->length + (UINT64_C(1) << bits) - 1) >> bits;
    return ((UINT64_C(1) << end) - 1) & ~((UINT64_C(1) << first) - 1);
}

/* ---- Entries --------------------------------------------------------------------- */

static uint64_t entry_offset(const struct qcow2_edit *edit, const struct part *part)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    return (part->cluster & ((UINT64_C(1) << geometry->l2_bits) - 1)) * geometry->l2_entry_bytes;
}

/* Makes the table at hand the part's, and fills in its entry. */
static int look_up(struct qcow2_edit *edit, struct part *part, struct imgtk_error *err)
{
    int status = qcow2_edit_select(edit, part->cluster >> geometry_of(edit)->l2_bits, err);
    if (status != 0)
        return status;
    const uint8_t *at = edit->l2 + entry_offset(edit, part);
    part->entry = imgtk_be64(at);
    part->bitmap = geometry_of(edit)->extended_l2 ? imgtk_be64(at + 8) : 0;
    return 0;
}

static int put_entry(struct qcow2_edit *edit, const struct part *part, uint64_t entry, uint64_t bitmap,
                     struct imgtk_error *err)
{
    if (entry == part->entry && bitmap == part->bitmap)
        return 0;
    int status = qcow2_edit_touch(edit, err);
    uint8_t *at = edit->l2 + entry_offset(edit, part);
    imgtk_put_be64(at, entry);
    if (geometry_of(edit)->extended_l2)
        imgtk_put_be64(at + 8, bitmap);
    return status;
}

static bool is_plain(const struct part *part)
{
    return !(part->entry & QCOW2_COMPRESSED);
}

/* Whether the part's cluster may be written where it is. */
static bool is_own(const struct qcow2_edit *edit, const struct part *part)
{
    uint64_t host = part->entry & QCOW2_OFFSET_MASK;
    if (!is_plain(part))
        return false;
    if (!qcow2_edit_inside(edit))
        return host != 0 || (part->entry & QCOW2_COPIED);
    return host != 0 && qcow2_edit_references(edit, host) == 1;
}

/* ---- Writing ----------------------------------------------------------------------- */

/* With an external data file every guest cluster has the place of its own offset. */
static int new_place(struct qcow2_edit *edit, const struct part *part, uint64_t *host, struct imgtk_error *err)
{
    if (qcow2_edit_inside(edit))
        return qcow2_edit_allocate(edit, 1, QCOW2_USE_DATA, host, err);
    *host = part->cluster << geometry_of(edit)->cluster_bits;
    return 0;
}

/* Fills edit->cluster with what this layer has in the part's cluster; *bitmap: which subclusters that is. */
static int read_old(struct qcow2_edit *edit, const struct part *part, uint64_t *bitmap, struct imgtk_error *err)
{
    size_t cluster_size = (size_t)geometry_of(edit)->cluster_size, done;
    uint64_t guest = part->cluster << geometry_of(edit)->cluster_bits;
    memset(edit->cluster, 0, cluster_size);
    *bitmap = part->bitmap;
    if (!is_plain(part)) {
        *bitmap = ALL_SUBCLUSTERS;
        return qcow2_read(edit->image, edit->cluster, (size_t)imgtk_min_u64(cluster_size, edit->image->size - guest),
                          guest, err);
    }
    uint64_t host = part->entry & QCOW2_OFFSET_MASK;
    if (host == 0)
        return 0;
    return imgtk_storage_pread_some(edit->image->data_file, edit->cluster, cluster_size, host, &done, err);
}

/* A new cluster with the old one's bytes (when a part is kept) and the new ones. */
static int write_new(struct qcow2_edit *edit, const struct part *part, uint64_t host, uint64_t *bitmap,
                     struct imgtk_error *err)
{
    size_t cluster_size = (size_t)geometry_of(edit)->cluster_size;
    int status = 0;
    *bitmap = 0;
    if (is_whole(part))
        memset(edit->cluster, 0, cluster_size);
    else
        status = read_old(edit, part, bitmap, err);
    if (status != 0)
        return status;
    memcpy(edit->cluster + part->in_cluster, part->from, (size_t)part->length);
    return imgtk_storage_pwrite(edit->image->data_file, edit->cluster, cluster_size, host, err);
}

static int write_in_place(struct qcow2_edit *edit, const struct part *part, struct qcow2_segments *segments,
                          struct imgtk_error *err)
{
    uint64_t host = part->entry & QCOW2_OFFSET_MASK, covered = subclusters_of(edit, part);
    qcow2_segments_add(segments, part->from, host + part->in_cluster, (size_t)part->length);
    if (geometry_of(edit)->extended_l2)
        return put_entry(edit, part, part->entry, (part->bitmap & ~(covered << QCOW2_SUBCLUSTERS)) | covered, err);
    return put_entry(edit, part, part->entry & ~QCOW2_ZERO, 0, err);
}

static int write_part(struct qcow2_edit *edit, struct part *part, struct qcow2_segments *segments,
                      struct imgtk_error *err)
{
    uint64_t host, bitmap = 0, covered = subclusters_of(edit, part);
    int status = look_up(edit, part, err);
    if (status != 0 || is_own(edit, part))
        return status != 0 ? status : write_in_place(edit, part, segments, err);
    status = new_place(edit, part, &host, err);
    if (status == 0 && part->length == geometry_of(edit)->cluster_size)
        qcow2_segments_add(segments, part->from, host, (size_t)part->length);
    else if (status == 0)
        status = write_new(edit, part, host, &bitmap, err);
    if (status == 0)
        status = qcow2_edit_release_entry(edit, part->entry, err);
    if (status != 0)
        return status;
    bitmap = geometry_of(edit)->extended_l2 ? (bitmap & ~(covered << QCOW2_SUBCLUSTERS)) | covered : 0;
    return put_entry(edit, part, host | QCOW2_COPIED, bitmap, err);
}

/* ---- Zeroing ------------------------------------------------------------------------ */

/* A whole cluster: nothing of it is kept but, in an external data file, its place. */
static int zero_whole(struct qcow2_edit *edit, const struct part *part, struct imgtk_error *err)
{
    bool keeps_place = !qcow2_edit_inside(edit) && is_own(edit, part), extended = geometry_of(edit)->extended_l2;
    bool said = keeps_place || qcow2_edit_has_backing(edit); /* else nothing is zeroes too */
    uint64_t entry = keeps_place ? part->entry & (QCOW2_OFFSET_MASK | QCOW2_COPIED) : 0;
    uint64_t bitmap = said && extended ? ALL_SUBCLUSTERS << QCOW2_SUBCLUSTERS : 0;
    if (said && !extended && edit->image->header.version >= 3)
        entry |= QCOW2_ZERO;
    int status = qcow2_edit_release_entry(edit, part->entry, err);
    return status == 0 ? put_entry(edit, part, entry, bitmap, err) : status;
}

/* The cluster, which is compressed, as plain data; of the part, only the bits of the subclusters remain to be said. */
static int unpack(struct qcow2_edit *edit, const struct part *part, uint64_t part_bits, struct imgtk_error *err)
{
    uint64_t host, bitmap;
    int status = new_place(edit, part, &host, err);
    if (status == 0)
        status = read_old(edit, part, &bitmap, err);
    if (status == 0)
        status = imgtk_storage_pwrite(edit->image->data_file, edit->cluster, (size_t)geometry_of(edit)->cluster_size,
                                      host, err);
    if (status == 0)
        status = qcow2_edit_release_entry(edit, part->entry, err);
    bitmap = (ALL_SUBCLUSTERS & ~subclusters_of(edit, part)) | part_bits;
    return status == 0 ? put_entry(edit, part, host | QCOW2_COPIED, bitmap, err) : status;
}

/* Some subclusters of one. */
static int zero_subclusters(struct qcow2_edit *edit, const struct part *part, struct imgtk_error *err)
{
    uint64_t covered = subclusters_of(edit, part), zeroes = covered << QCOW2_SUBCLUSTERS;
    if (!is_plain(part))
        return unpack(edit, part, zeroes, err);
    return put_entry(edit, part, part->entry, (part->bitmap & ~covered) | zeroes, err);
}

/* Zeroes as data: edit->cluster holds them until the part is written. */
static int zero_as_data(struct qcow2_edit *edit, struct part *part, struct imgtk_error *err)
{
    uint8_t *zeroes = calloc(1, (size_t)part->length);
    struct qcow2_segments segments;
    if (!zeroes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for zeroes");
    part->from = zeroes;
    int status = qcow2_segments_init(&segments, 1, err);
    if (status == 0)
        status = write_part(edit, part, &segments, err);
    if (status == 0)
        status = qcow2_segments_write(&segments, edit->image->data_file, err);
    free(segments.at);
    free(zeroes);
    return status;
}

static int zero_part(struct qcow2_edit *edit, struct part *part, struct imgtk_error *err)
{
    int status = look_up(edit, part, err);
    if (status != 0)
        return status;
    if (!is_whole(part) && geometry_of(edit)->extended_l2)
        return zero_subclusters(edit, part, err);
    /* Version 2 has no other way to hide a backing file. */
    if (edit->image->header.version < 3 && qcow2_edit_has_backing(edit))
        return zero_as_data(edit, part, err);
    return zero_whole(edit, part, err);
}

/* ---- Cutting off ------------------------------------------------------------------------ */

int qcow2_edit_cut(struct qcow2_edit *edit, uint64_t end, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t start = imgtk_round_up(end, UINT64_C(1) << geometry->subcluster_bits);
    struct part part = { .cluster = start >> geometry->cluster_bits };
    part.in_cluster = start & (geometry->cluster_size - 1);
    part.length = geometry->cluster_size - part.in_cluster;
    if (part.in_cluster == 0 || part.cluster >> geometry->l2_bits >= edit->l1_entries)
        return 0;
    int status = look_up(edit, &part, err);
    uint64_t cut = subclusters_of(edit, &part) * (1 | UINT64_C(1) << QCOW2_SUBCLUSTERS);
    if (status != 0 || (is_plain(&part) && (part.bitmap & cut) == 0))
        return status;
    status = qcow2_edit_need_data(edit, err);
    if (status == 0)
        status = qcow2_edit_count(edit, err);
    if (status != 0)
        return status;
    return is_plain(&part) ? put_entry(edit, &part, part.entry, part.bitmap & ~cut, err) : unpack(edit, &part, 0, err);
}

/* ---- Ranges ---------------------------------------------------------------------------- */

static struct part next_part(const struct qcow2_edit *edit, uint64_t offset, uint64_t end)
{
    const struct qcow2_geometry *geometry = geometry_of(edit);
    uint64_t start = imgtk_round_down(offset, geometry->cluster_size);
    struct part part = { .cluster = offset >> geometry->cluster_bits, .in_cluster = offset - start };
    part.visible = imgtk_min_u64(geometry->cluster_size, edit->size - start);
    part.length = imgtk_min_u64(start + part.visible, end) - offset;
    return part;
}

/* The range must lie within the new size and consist of units. */
static int check_range(const struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    uint64_t unit = UINT64_C(1) << geometry_of(edit)->subcluster_bits;
    bool units = offset % unit == 0 && (length % unit == 0 || offset + length == edit->size);
    if (imgtk_range_fits(offset, length, edit->size) && units)
        return 0;
    return imgtk_fail(err, IMGTK_EINVAL, "range %" PRIu64 "+%" PRIu64 " does not consist of units of %" PRIu64
                                         " bytes of a disk of %" PRIu64, offset, length, unit, edit->size);
}

static int begin_change(struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    int status = check_range(edit, offset, length, err);
    if (status == 0)
        status = qcow2_edit_need_data(edit, err);
    if (status == 0)
        status = qcow2_edit_count(edit, err);
    return status == 0 ? qcow2_edit_bitmaps_record(edit, offset, length, err) : status;
}

int qcow2_edit_write(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    uint64_t end = offset + length, start = offset;
    struct qcow2_segments segments = { .at = NULL };
    int status = begin_change(edit, offset, length, err);
    if (status == 0)
        status = qcow2_segments_init(&segments, (length >> geometry_of(edit)->cluster_bits) + 2, err);
    while (offset < end && status == 0) {
        struct part part = next_part(edit, offset, end);
        part.from = (const uint8_t *)buf + (offset - start);
        status = write_part(edit, &part, &segments, err);
        offset += part.length;
    }
    if (status == 0)
        status = qcow2_segments_write(&segments, edit->image->data_file, err);
    free(segments.at);
    return status;
}

int qcow2_edit_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    uint64_t end = offset + length;
    int status = begin_change(edit, offset, length, err);
    if (status == 0 && qcow2_edit_raw_data(edit))
        status = imgtk_storage_zero(edit->image->data_file, offset, length, 0, err);
    while (offset < end && status == 0) {
        struct part part = next_part(edit, offset, end);
        status = zero_part(edit, &part, err);
        offset += part.length;
    }
    return status;
}

int qcow2_edit_empty(void *handle, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    int status = qcow2_edit_count(edit, err);
    if (status == 0 && qcow2_edit_raw_data(edit))
        status = imgtk_fail(err, IMGTK_EUNSUPPORTED, "an image with a raw data file cannot be emptied");
    edit->compact = true;
    return status == 0 ? qcow2_edit_drop(edit, 0, err) : status;
}
