/* Counting what an L2 table refers to. Goes over a table once in silence, and once more if there is something to tell. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "check.h"

struct walk {
    struct qcow2_check_state *state;
    struct qcow2_check_worker *worker;
    struct qcow2_l2_visit visit;
    bool telling;             /* reports, and counts nothing */
    bool faulty;
    uint64_t next_contiguous; /* host offset at which the last cluster ended; 0: none yet */
    uint64_t first, count;    /* clusters in a row that are still to be counted */
};

static bool is_inside(const struct walk *walk)
{
    return !(walk->state->image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE);
}

static void fault(struct walk *walk, const char *format, ...) IMGTK_PRINTF(2, 3);

static void fault(struct walk *walk, const char *format, ...)
{
    char message[IMGTK_MESSAGE_SIZE];
    va_list list;
    walk->faulty = true;
    if (!walk->telling)
        return;
    va_start(list, format);
    vsnprintf(message, sizeof(message), format, list);
    va_end(list);
    qcow2_check_corruption(walk->state, "%s", message);
}

/* ---- Counting ------------------------------------------------------------- */

static int count_run(struct walk *walk, struct imgtk_error *err)
{
    uint64_t count = walk->telling ? 0 : walk->count;
    walk->count = 0;
    struct qcow2_references what = { QCOW2_USE_DATA, walk->visit.times };
    return count > 0 ? qcow2_tally_add_references(&walk->state->tally, walk->first, count, what, err) : 0;
}

static int count_range(struct walk *walk, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    unsigned bits = walk->state->image->geometry.cluster_bits;
    int status = 0;
    if (!qcow2_range_is_inside(walk->state, offset, length)) {
        fault(walk, QCOW2_BEYOND_FORMAT, offset, length, walk->state->file_size);
        walk->worker->beyond = true;
        return 0;
    }
    uint64_t first = offset >> bits, count = ((offset + length - 1) >> bits) - first + 1;
    if (first != walk->first + walk->count) {
        status = count_run(walk, err);
        walk->first = first;
    }
    walk->count += count;
    return status;
}

static void count_fragments(const struct walk *walk, bool compressed, bool fragmented)
{
    if (!walk->visit.active || walk->telling)
        return;
    walk->worker->allocated++;
    walk->worker->compressed += compressed;
    walk->worker->fragmented += fragmented;
}

/* ---- Entries -------------------------------------------------------------- */

/* bitmap: of its subclusters, which a compressed cluster has not; 0 where no entry has one */
static int count_compressed(struct walk *walk, uint64_t entry, uint64_t bitmap, struct imgtk_error *err)
{
    struct qcow2_compressed stream = qcow2_compressed(&walk->state->image->geometry, entry);
    if (bitmap != 0)
        fault(walk, "ERROR compressed cluster with a bitmap of subclusters, entry=0x%" PRIx64, entry);
    if (!is_inside(walk)) {
        fault(walk, "ERROR compressed cluster with an external data file, entry=0x%" PRIx64, entry);
        return 0;
    }
    count_fragments(walk, true, true); /* by nature */
    return count_range(walk, stream.offset, stream.length, err);
}

static int count_plain(struct walk *walk, uint64_t entry, struct imgtk_error *err)
{
    uint64_t host = entry & QCOW2_OFFSET_MASK, cluster_size = walk->state->image->geometry.cluster_size;
    if (host == 0 && (is_inside(walk) || !(entry & QCOW2_COPIED)))
        return 0;
    count_fragments(walk, false, walk->next_contiguous != 0 && host != walk->next_contiguous);
    walk->next_contiguous = host + cluster_size;
    if (host & (cluster_size - 1)) {
        fault(walk, "ERROR offset=0x%" PRIx64 ": data cluster is not aligned; L2 entry corrupted", host);
        walk->worker->incomplete = true;
        return 0;
    }
    return is_inside(walk) ? count_range(walk, host, cluster_size, err) : 0;
}

static void check_subclusters(struct walk *walk, uint64_t entry, uint64_t bitmap)
{
    uint64_t allocated = bitmap & UINT32_MAX, zero = bitmap >> QCOW2_SUBCLUSTERS;
    bool space = (entry & QCOW2_OFFSET_MASK) != 0 || (!is_inside(walk) && (entry & QCOW2_COPIED));
    if ((allocated & zero) != 0 || (!space && allocated != 0))
        fault(walk, "ERROR L2 entry 0x%" PRIx64 ": subclusters contradict each other, bitmap=0x%016" PRIx64, entry,
              bitmap);
}

static int count_entry(struct walk *walk, const uint8_t *at, struct imgtk_error *err)
{
    const struct qcow2 *image = walk->state->image;
    uint64_t entry = imgtk_be64(at), bitmap = image->geometry.extended_l2 ? imgtk_be64(at + 8) : 0;
    if (entry & QCOW2_COMPRESSED)
        return count_compressed(walk, entry, bitmap, err);
    if (image->geometry.extended_l2)
        check_subclusters(walk, entry, bitmap);
    if (entry == 0)
        return 0;
    if ((entry & QCOW2_L2_RESERVED) || (image->header.version < 3 && (entry & QCOW2_ZERO)))
        fault(walk, "ERROR L2 entry with reserved bits set: 0x%" PRIx64, entry);
    return count_plain(walk, entry, err);
}

static int go_over(struct walk *walk, struct imgtk_error *err)
{
    const struct qcow2 *image = walk->state->image;
    uint64_t l2_offset = walk->visit.l2_offset;
    size_t bytes = (size_t)image->geometry.cluster_size;
    int status = imgtk_storage_pread(image->file, walk->worker->table, bytes, l2_offset, err);
    if (status != 0)
        return imgtk_fail_prefix(err, "L2 table at 0x%" PRIx64, l2_offset);
    for (size_t at = 0; at < bytes && status == 0; at += image->geometry.l2_entry_bytes)
        status = count_entry(walk, walk->worker->table + at, err);
    return status == 0 ? count_run(walk, err) : status;
}

int qcow2_count_l2(struct qcow2_check_state *state, struct qcow2_check_worker *worker,
                   const struct qcow2_l2_visit *visit, bool *tell, struct imgtk_error *err)
{
    struct walk walk = { .state = state, .worker = worker, .visit = *visit };
    int status = go_over(&walk, err);
    *tell |= walk.faulty;
    return status;
}

int qcow2_report_l2(struct qcow2_check_state *state, uint64_t l2_offset, struct imgtk_error *err)
{
    struct walk walk = { .state = state, .worker = &state->own, .visit.l2_offset = l2_offset, .telling = true };
    return go_over(&walk, err);
}
