/* The header's cluster of an image that is edited: its fields, the backing file's name, and where the bitmaps are. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"

enum { SECTOR = 512 };

/* ---- The commit --------------------------------------------------------------- */

bool qcow2_edit_has_backing(const struct qcow2_edit *edit)
{
    return imgtk_be64(edit->head + QCOW2_AT_BACKING_OFFSET) != 0 || edit->image->header.backing_offset != 0;
}

static void put_fields(struct qcow2_edit *edit)
{
    uint8_t *head = edit->head;
    imgtk_put_be64(head + QCOW2_AT_SIZE, edit->size);
    if (edit->counted) {
        imgtk_put_be64(head + QCOW2_AT_REFCOUNT_TABLE_OFFSET, edit->table_offset);
        imgtk_put_be32(head + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, edit->table_clusters);
    }
    /* Whoever changes an image clears the bits of what it does not know to keep up to date. */
    if (edit->image->header.version >= 3)
        imgtk_put_be64(head + QCOW2_AT_AUTOCLEAR, imgtk_be64(head + QCOW2_AT_AUTOCLEAR) &
                                                      (QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_FILE_RAW));
}

/* One write, from the beginning to the last sector that differs: one sector, unless names or extensions change. */
int qcow2_edit_write_header(struct qcow2_edit *edit, struct imgtk_error *err)
{
    size_t end = (size_t)edit->image->geometry.cluster_size;
    put_fields(edit);
    while (end > 0 && memcmp(edit->head + end - SECTOR, edit->head_on_disk + end - SECTOR, SECTOR) == 0)
        end -= SECTOR;
    return end == 0 ? 0 : imgtk_storage_pwrite(edit->image->file, edit->head, end, 0, err);
}

/* ---- The backing file --------------------------------------------------------------- */

/* Where the extensions end and what takes the place of the end mark begins. */
struct area {
    uint8_t *bytes;    /* a new header cluster */
    size_t used, size;
    bool terse;        /* without the names of features, which only help to explain an error */
};

static int append(struct area *area, const void *bytes, size_t length, struct imgtk_error *err)
{
    if (length > area->size - area->used)
        return imgtk_fail(err, IMGTK_ELIMIT, "header and names must fit into one cluster of %zu bytes", area->size);
    memcpy(area->bytes + area->used, bytes, length);
    area->used += length;
    return 0;
}

static int append_extension(struct area *area, uint32_t type, const void *data, size_t length, struct imgtk_error *err)
{
    static const uint8_t padding[8];
    uint8_t header[QCOW2_EXTENSION_HEADER];
    imgtk_put_be32(header, type);
    imgtk_put_be32(header + 4, (uint32_t)length);
    int status = append(area, header, sizeof(header), err);
    if (status == 0)
        status = append(area, data, length, err);
    return status == 0 ? append(area, padding, (8 - length % 8) % 8, err) : status;
}

/* Copies all extensions but the backing format; they were validated when the image was opened. */
static int copy_extensions(const struct qcow2_edit *edit, struct area *area, struct imgtk_error *err)
{
    const struct qcow2_header *header = &edit->image->header;
    uint64_t end = header->backing_offset ? header->backing_offset : edit->image->geometry.cluster_size;
    uint64_t at = header->header_length;
    int status = 0;
    while (status == 0 && at + QCOW2_EXTENSION_HEADER <= end) {
        uint32_t type = imgtk_be32(edit->head_on_disk + at), length = imgtk_be32(edit->head_on_disk + at + 4);
        at += QCOW2_EXTENSION_HEADER;
        if (type == QCOW2_EXT_END || length > end - at)
            break;
        if (type != QCOW2_EXT_BACKING_FORMAT && !(area->terse && type == QCOW2_EXT_FEATURE_NAMES))
            status = append_extension(area, type, edit->head_on_disk + at, length, err);
        at += imgtk_round_up(length, 8);
    }
    return status;
}

static int build(const struct qcow2_edit *edit, const char *name, const char *format, struct area *area,
                 struct imgtk_error *err)
{
    static const uint8_t end_mark[QCOW2_EXTENSION_HEADER];
    memset(area->bytes, 0, area->size);
    area->used = 0;
    int status = append(area, edit->head, edit->image->header.header_length, err);
    if (status == 0 && name && format)
        status = append_extension(area, QCOW2_EXT_BACKING_FORMAT, format, strlen(format), err);
    if (status == 0)
        status = copy_extensions(edit, area, err);
    if (status == 0)
        status = append(area, end_mark, sizeof(end_mark), err);
    imgtk_put_be64(area->bytes + QCOW2_AT_BACKING_OFFSET, name ? area->used : 0);
    imgtk_put_be32(area->bytes + QCOW2_AT_BACKING_LENGTH, name ? (uint32_t)strlen(name) : 0);
    return status == 0 && name ? append(area, name, strlen(name), err) : status;
}

int qcow2_edit_backing(void *handle, const char *name, const char *format, struct imgtk_error *err)
{
    struct qcow2_edit *edit = qcow2_edit_of(handle);
    struct area area = { .size = (size_t)edit->image->geometry.cluster_size };
    if (name && strlen(name) > QCOW2_MAX_NAME)
        return imgtk_fail(err, IMGTK_ELIMIT, "backing file name of %zu bytes is above the limit of %d", strlen(name),
                          QCOW2_MAX_NAME);
    if (name && qcow2_edit_raw_data(edit))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "an image with a raw data file cannot have a backing file");
    area.bytes = calloc(1, area.size);
    if (!area.bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a header");
    int status = build(edit, name, format, &area, err);
    if (status == IMGTK_ELIMIT) {
        area.terse = true;
        status = build(edit, name, format, &area, err);
    }
    if (status == 0)
        memcpy(edit->head, area.bytes, area.size);
    free(area.bytes);
    return status;
}

/* ---- Bitmaps --------------------------------------------------------------------------- */

int qcow2_edit_put_bitmaps(struct qcow2_edit *edit, uint64_t directory_offset, struct imgtk_error *err)
{
    uint64_t end = edit->image->geometry.cluster_size, at = edit->image->header.header_length;
    if (imgtk_be64(edit->head + QCOW2_AT_BACKING_OFFSET) != 0)
        end = imgtk_min_u64(end, imgtk_be64(edit->head + QCOW2_AT_BACKING_OFFSET));
    while (at + QCOW2_EXTENSION_HEADER + QCOW2_BITMAPS_LENGTH <= end) {
        uint32_t type = imgtk_be32(edit->head + at), length = imgtk_be32(edit->head + at + 4);
        at += QCOW2_EXTENSION_HEADER;
        if (type == QCOW2_EXT_END || length > end - at)
            break;
        if (type == QCOW2_EXT_BITMAPS) {
            imgtk_put_be64(edit->head + at + QCOW2_BITMAPS_AT_DIRECTORY_OFFSET, directory_offset);
            return 0;
        }
        at += imgtk_round_up(length, 8);
    }
    return imgtk_fail(err, IMGTK_ECORRUPT, "the header does not name the bitmaps");
}
