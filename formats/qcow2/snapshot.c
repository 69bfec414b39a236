/* The table of internal snapshots. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

enum { MAX_TEXT = UINT16_MAX };

struct walk {
    struct qcow2 *image;
    uint64_t offset;        /* of the next entry */
    uint64_t end;           /* the table ends before it */
    char id[MAX_TEXT + 1], name[MAX_TEXT + 1];
};

static int read_text(struct walk *walk, uint64_t offset, size_t length, char *out, struct imgtk_error *err)
{
    out[length] = '\0';
    return imgtk_storage_pread(walk->image->file, out, length, offset, err);
}

/* Fields that came later are in the extra data, as far as it reaches. */
static int read_extra(struct walk *walk, uint64_t offset, uint32_t length, struct qcow2_snapshot *out,
                      struct imgtk_error *err)
{
    uint8_t extra[QCOW2_SNAPSHOT_EXTRA_LENGTH];
    size_t known = length < sizeof(extra) ? length : sizeof(extra);
    int status = imgtk_storage_pread(walk->image->file, extra, known, offset, err);
    if (status != 0)
        return status;
    if (known >= QCOW2_SNAPSHOT_EXTRA_VM_STATE_SIZE + 8)
        out->vm_state_size = imgtk_be64(extra + QCOW2_SNAPSHOT_EXTRA_VM_STATE_SIZE);
    if (known >= QCOW2_SNAPSHOT_EXTRA_DISK_SIZE + 8)
        out->disk_size = imgtk_be64(extra + QCOW2_SNAPSHOT_EXTRA_DISK_SIZE);
    if (known >= QCOW2_SNAPSHOT_EXTRA_ICOUNT + 8) {
        out->icount = imgtk_be64(extra + QCOW2_SNAPSHOT_EXTRA_ICOUNT);
        out->has_icount = out->icount != UINT64_MAX;
    }
    return 0;
}

static void parse_fixed(const uint8_t *bytes, const struct qcow2 *image, struct qcow2_snapshot *out)
{
    *out = (struct qcow2_snapshot){
        .l1_offset = imgtk_be64(bytes + QCOW2_SNAPSHOT_AT_L1_OFFSET),
        .l1_size = imgtk_be32(bytes + QCOW2_SNAPSHOT_AT_L1_SIZE),
        .extra_length = imgtk_be32(bytes + QCOW2_SNAPSHOT_AT_EXTRA_LENGTH),
        .date_sec = imgtk_be32(bytes + QCOW2_SNAPSHOT_AT_DATE_SEC),
        .date_nsec = imgtk_be32(bytes + QCOW2_SNAPSHOT_AT_DATE_NSEC),
        .vm_clock_nsec = imgtk_be64(bytes + QCOW2_SNAPSHOT_AT_VM_CLOCK_NSEC),
        .vm_state_size = imgtk_be32(bytes + QCOW2_SNAPSHOT_AT_VM_STATE_SIZE),
        .disk_size = image->header.size,
    };
}

static int read_entry(struct walk *walk, struct qcow2_snapshot *out, struct imgtk_error *err)
{
    uint8_t bytes[QCOW2_SNAPSHOT_ENTRY];
    int status = imgtk_storage_pread(walk->image->file, bytes, sizeof(bytes), walk->offset, err);
    if (status != 0)
        return status;
    parse_fixed(bytes, walk->image, out);
    uint32_t extra_length = out->extra_length;
    size_t id_length = imgtk_be16(bytes + QCOW2_SNAPSHOT_AT_ID_LENGTH);
    size_t name_length = imgtk_be16(bytes + QCOW2_SNAPSHOT_AT_NAME_LENGTH);
    uint64_t extra = walk->offset + QCOW2_SNAPSHOT_ENTRY, id = extra + extra_length, name = id + id_length;
    if (extra_length > QCOW2_MAX_SNAPSHOT_EXTRA)
        return imgtk_fail(err, IMGTK_ELIMIT, "%" PRIu32 " bytes of extra data in a snapshot are above the limit of %u",
                          extra_length, QCOW2_MAX_SNAPSHOT_EXTRA);
    if (name + name_length > walk->end)
        return imgtk_fail(err, IMGTK_ELIMIT, "snapshot table of more than %" PRIu64 " bytes", QCOW2_MAX_SNAPSHOTS_BYTES);
    status = read_extra(walk, extra, extra_length, out, err);
    if (status == 0)
        status = read_text(walk, id, id_length, walk->id, err);
    if (status == 0)
        status = read_text(walk, name, name_length, walk->name, err);
    out->offset = walk->offset;
    out->length = name + name_length - walk->offset;
    out->id = walk->id;
    out->name = walk->name;
    walk->offset = imgtk_round_up(name + name_length, 8);
    return status;
}

int qcow2_snapshots_walk(struct qcow2 *image, qcow2_snapshot_fn visit, void *context, uint64_t *end_offset,
                         struct imgtk_error *err)
{
    struct walk *walk = malloc(sizeof(*walk));
    if (!walk)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for snapshots");
    walk->image = image;
    walk->offset = image->header.snapshots_offset;
    walk->end = walk->offset + QCOW2_MAX_SNAPSHOTS_BYTES;
    int status = 0;
    for (uint32_t i = 0; i < image->header.snapshot_count && status == 0; i++) {
        struct qcow2_snapshot snapshot;
        status = read_entry(walk, &snapshot, err);
        if (status != 0)
            imgtk_fail_prefix(err, "snapshot %" PRIu32, i + 1);
        else
            status = visit(context, &snapshot, err);
    }
    if (end_offset)
        *end_offset = walk->offset;
    free(walk);
    return status;
}

int qcow2_snapshot_validate(const struct qcow2 *image, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    if (snapshot->disk_size > QCOW2_MAX_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "virtual size %" PRIu64 " is above the limit of %" PRId64 " bytes",
                          snapshot->disk_size, QCOW2_MAX_SIZE);
    uint64_t needed = qcow2_l1_entries(&image->geometry, snapshot->disk_size);
    uint64_t bytes = (uint64_t)snapshot->l1_size * sizeof(uint64_t);
    if (bytes > QCOW2_MAX_L1_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT, "L1 table of %" PRIu32 " entries is above the limit of %" PRIu64,
                          snapshot->l1_size, QCOW2_MAX_L1_BYTES / sizeof(uint64_t));
    if (snapshot->l1_size < needed)
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L1 table of %" PRIu32 " entries is too small for the disk, which needs %" PRIu64,
                          snapshot->l1_size, needed);
    if (snapshot->l1_offset & (image->geometry.cluster_size - 1))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L1 table offset 0x%" PRIx64 " is not a multiple of the cluster size %" PRIu64,
                          snapshot->l1_offset, image->geometry.cluster_size);
    if (!imgtk_range_fits(snapshot->l1_offset, bytes, image->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L1 table of %" PRIu64 " bytes at 0x%" PRIx64 " reaches beyond the end of the file at 0x%" PRIx64,
                          bytes, snapshot->l1_offset, image->file_size);
    return 0;
}

enum { FOUND = 1 };

struct search {
    const char *wanted;
    bool by_id;
    struct qcow2_snapshot *out;
};

static int match(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    (void)err;
    struct search *search = context;
    if (strcmp(search->by_id ? snapshot->id : snapshot->name, search->wanted) != 0)
        return 0;
    *search->out = *snapshot;
    search->out->id = search->out->name = NULL;
    return FOUND;
}

int qcow2_snapshot_find(struct qcow2 *image, const char *wanted, struct qcow2_snapshot *out, struct imgtk_error *err)
{
    struct search search = { wanted, true, out };
    int status = qcow2_snapshots_walk(image, match, &search, NULL, err);
    if (status == 0) {
        search.by_id = false;
        status = qcow2_snapshots_walk(image, match, &search, NULL, err);
    }
    if (status == FOUND)
        return 0;
    return status != 0 ? status : imgtk_fail(err, IMGTK_ENOTFOUND, "no snapshot with the id or name '%s'", wanted);
}
