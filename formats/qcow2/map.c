/* From guest offsets to runs and extents, by way of the L1 and L2 tables. */
#include <inttypes.h>

#include "qcow2.h"

enum { MAX_SLICE_BYTES = 64 << 10, CACHE_BYTES = 16 << 20 };

/* Both halves of an extended entry's bitmap. */
#define ALL_ALLOCATED UINT64_C(0x00000000ffffffff)
#define ALL_ZERO UINT64_C(0xffffffff00000000)

/* ---- Slices ------------------------------------------------------------- */

static int load_slice(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct qcow2 *image = context;
    if (imgtk_storage_pread(image->file, table, image->slice_bytes, key, err) != 0)
        return imgtk_fail_prefix(err, "L2 table at 0x%" PRIx64, key);
    return 0;
}

int qcow2_cache_open(struct qcow2 *image, struct imgtk_error *err)
{
    image->slice_bytes = (size_t)imgtk_min_u64(image->geometry.cluster_size, MAX_SLICE_BYTES);
    return imgtk_cache_new(image->slice_bytes, CACHE_BYTES, load_slice, image, &image->l2_slices, err);
}

static bool overlaps_l1(const struct qcow2 *image, uint64_t offset, uint64_t length)
{
    return offset < image->l1_offset + image->l1_bytes && image->l1_offset < offset + length;
}

static int validate_l2_offset(const struct qcow2 *image, uint64_t l2_offset, uint64_t guest, struct imgtk_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    if (l2_offset & (cluster_size - 1))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L2 table of guest offset 0x%" PRIx64 " lies at 0x%" PRIx64
                          ", which is not a multiple of the cluster size %" PRIu64, guest, l2_offset, cluster_size);
    if (!imgtk_range_fits(l2_offset, cluster_size, image->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L2 table of guest offset 0x%" PRIx64 " lies at 0x%" PRIx64
                          ", beyond the end of the file at 0x%" PRIx64, guest, l2_offset, image->file_size);
    if (overlaps_l1(image, l2_offset, cluster_size))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L2 table of guest offset 0x%" PRIx64 " lies at 0x%" PRIx64 ", within the L1 table", guest,
                          l2_offset);
    return 0;
}

static void skip_unallocated(const struct qcow2 *image, uint64_t index, uint64_t limit, struct qcow2_slice *out)
{
    unsigned shift = image->geometry.cluster_bits + image->geometry.l2_bits;
    out->entries = NULL;
    out->start = index << shift;
    do
        index++;
    while (index < image->l1_entries && index << shift < limit && (image->l1[index] & QCOW2_OFFSET_MASK) == 0);
    out->end = index < image->l1_entries ? index << shift : image->size;
}

int qcow2_slice_get(struct qcow2 *image, uint64_t offset, uint64_t limit, struct qcow2_slice *out,
                    struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &image->geometry;
    uint64_t index = offset >> (geometry->cluster_bits + geometry->l2_bits);
    uint64_t l2_offset = image->l1[index] & QCOW2_OFFSET_MASK;
    if (l2_offset == 0) {
        skip_unallocated(image, index, limit, out);
        return 0;
    }
    int status = validate_l2_offset(image, l2_offset, offset, err);
    if (status != 0)
        return status;
    uint64_t entry = (offset >> geometry->cluster_bits) & ((UINT64_C(1) << geometry->l2_bits) - 1);
    uint64_t in_table = imgtk_round_down(entry * geometry->l2_entry_bytes, image->slice_bytes);
    uint64_t covered = image->slice_bytes / geometry->l2_entry_bytes << geometry->cluster_bits;
    out->start = imgtk_round_down(offset, covered);
    out->end = imgtk_min_u64(covered, image->size - out->start) + out->start;
    const void *table;
    status = imgtk_cache_get(image->l2_slices, l2_offset + in_table, &table, err);
    out->entries = table;
    return status;
}

void qcow2_slice_put(struct qcow2 *image, struct qcow2_slice *slice)
{
    imgtk_cache_put(image->l2_slices, slice->entries);
    slice->entries = NULL;
}

/* ---- Entries ------------------------------------------------------------ */

static const uint8_t *entry_at(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset)
{
    return slice->entries + ((offset - slice->start) >> image->geometry.cluster_bits) * image->geometry.l2_entry_bytes;
}

uint64_t qcow2_slice_entry(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset)
{
    return imgtk_be64(entry_at(image, slice, offset));
}

static bool has_data_file(const struct qcow2 *image)
{
    return image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
}

/* Offset 0 is a place only in an external data file, and only when the entry is marked as copied. */
static bool has_space(const struct qcow2 *image, uint64_t entry)
{
    return (entry & QCOW2_OFFSET_MASK) != 0 || (has_data_file(image) && (entry & QCOW2_COPIED));
}

static enum qcow2_kind plain_kind(const struct qcow2 *image, uint64_t entry)
{
    if (entry & QCOW2_ZERO)
        return entry & QCOW2_OFFSET_MASK ? QCOW2_KIND_ZERO_ALLOCATED : QCOW2_KIND_ZERO;
    return has_space(image, entry) ? QCOW2_KIND_DATA : QCOW2_KIND_UNALLOCATED;
}

/* The kind of a subcluster, and how many from it on to the cluster's end share it. */
static enum qcow2_kind subcluster_kind(const struct qcow2 *image, uint64_t entry, uint64_t bitmap, unsigned subcluster,
                                       unsigned *count)
{
    bool space = has_space(image, entry);
    uint64_t allocated = bitmap & ALL_ALLOCATED, zero = bitmap >> QCOW2_SUBCLUSTERS;
    enum qcow2_kind kind;
    uint64_t like;
    if (zero >> subcluster & 1) {
        kind = space ? QCOW2_KIND_ZERO_ALLOCATED : QCOW2_KIND_ZERO;
        like = zero;
    } else if (allocated >> subcluster & 1) {
        kind = QCOW2_KIND_DATA;
        like = allocated;
    } else {
        kind = space ? QCOW2_KIND_UNALLOCATED_ALLOCATED : QCOW2_KIND_UNALLOCATED;
        like = ~(allocated | zero) & ALL_ALLOCATED;
    }
    *count = (unsigned)__builtin_ctzll(~(like >> subcluster));
    return kind;
}

static int validate_entry(const struct qcow2 *image, uint64_t entry, uint64_t bitmap, uint64_t guest,
                          struct imgtk_error *err)
{
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    if (entry & QCOW2_COMPRESSED) {
        if (has_data_file(image))
            return imgtk_fail(err, IMGTK_ECORRUPT,
                              "compressed cluster of guest offset 0x%" PRIx64 " in an image with an external data file",
                              guest);
        return 0;
    }
    if (host & (image->geometry.cluster_size - 1))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "cluster of guest offset 0x%" PRIx64 " lies at 0x%" PRIx64
                          ", which is not a multiple of the cluster size %" PRIu64,
                          guest, host, image->geometry.cluster_size);
    if (!image->geometry.extended_l2 && (entry & QCOW2_ZERO) && image->header.version < 3)
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "zero cluster of guest offset 0x%" PRIx64 " in an image of version 2", guest);
    if (image->geometry.extended_l2 && ((bitmap >> QCOW2_SUBCLUSTERS & bitmap) != 0 ||
                                        (!has_space(image, entry) && (bitmap & ALL_ALLOCATED) != 0)))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "subclusters of guest offset 0x%" PRIx64 " contradict each other (bitmap 0x%016" PRIx64 ")",
                          guest, bitmap);
    return 0;
}

/* ---- Runs --------------------------------------------------------------- */

/* What the entries that continue a run look like: entry i is (first + i * step), compared under the masks. */
struct pattern {
    uint64_t first, step, mask;
    uint64_t bitmap, bitmap_mask; /* extended L2 */
};

static uint64_t differs(const uint8_t *entry, const struct pattern *pattern, uint64_t i, bool extended)
{
    uint64_t difference = (imgtk_be64(entry) ^ (pattern->first + i * pattern->step)) & pattern->mask;
    if (extended)
        difference |= (imgtk_be64(entry + 8) ^ pattern->bitmap) & pattern->bitmap_mask;
    return difference;
}

/* How many of the entries follow the pattern. In blocks without a branch inside: this is what a map's time goes into. */
static inline uint64_t count_like(const uint8_t *entries, uint64_t count, const struct pattern *pattern, bool extended)
{
    enum { BLOCK = 8 };
    size_t stride = extended ? QCOW2_EXTENDED_L2_ENTRY : QCOW2_L2_ENTRY;
    uint64_t i = 0;
    for (; count - i >= BLOCK; i += BLOCK) {
        uint64_t difference = 0;
        for (uint64_t j = i; j < i + BLOCK; j++)
            difference |= differs(entries + j * stride, pattern, j, extended);
        if (difference)
            break;
    }
    while (i < count && differs(entries + i * stride, pattern, i, extended) == 0)
        i++;
    return i;
}

static struct pattern pattern_of(const struct qcow2 *image, uint64_t entry, enum qcow2_kind kind)
{
    struct pattern pattern = { .first = entry, .mask = ~QCOW2_COPIED, .bitmap_mask = UINT64_MAX };
    switch (kind) {
    case QCOW2_KIND_COMPRESSED:
        pattern.mask = QCOW2_COMPRESSED;
        pattern.bitmap_mask = 0;
        return pattern;
    case QCOW2_KIND_DATA:
        pattern.step = image->geometry.cluster_size;
        pattern.bitmap = ALL_ALLOCATED;
        break;
    case QCOW2_KIND_ZERO_ALLOCATED:
        pattern.step = image->geometry.cluster_size;
        pattern.bitmap = ALL_ZERO;
        break;
    case QCOW2_KIND_UNALLOCATED_ALLOCATED:
        pattern.step = image->geometry.cluster_size;
        break;
    case QCOW2_KIND_ZERO:
        pattern.bitmap = ALL_ZERO;
        pattern.mask = UINT64_MAX;
        break;
    case QCOW2_KIND_UNALLOCATED:
        pattern.mask = UINT64_MAX;
        break;
    }
    pattern.first += pattern.step;
    return pattern;
}

/* Lengthens a run of extended entries that reached the end of cluster `at - 1` by the beginning of the next one. */
static uint64_t partial_cluster(const struct qcow2 *image, const uint8_t *at, const struct pattern *pattern, uint64_t i,
                                enum qcow2_kind kind)
{
    uint64_t entry = imgtk_be64(at), bitmap = imgtk_be64(at + 8);
    unsigned count;
    if (((entry ^ (pattern->first + i * pattern->step)) & pattern->mask) != 0 || kind == QCOW2_KIND_COMPRESSED ||
        validate_entry(image, entry, bitmap, 0, NULL) != 0 || subcluster_kind(image, entry, bitmap, 0, &count) != kind)
        return 0;
    return (uint64_t)count << image->geometry.subcluster_bits;
}

/* Adds the clusters after the first one, which the run fills to its end, to its length. */
static void extend_run(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t next, uint64_t limit,
                       uint64_t entry, struct qcow2_run *run)
{
    const struct qcow2_geometry *geometry = &image->geometry;
    uint64_t end = imgtk_min_u64(limit, slice->end);
    if (next >= end)
        return;
    struct pattern pattern = pattern_of(image, entry, run->kind);
    const uint8_t *at = entry_at(image, slice, next);
    uint64_t clusters = qcow2_clusters(geometry, end - next);
    uint64_t like = geometry->extended_l2 ? count_like(at, clusters, &pattern, true)
                                          : count_like(at, clusters, &pattern, false);
    run->length += like << geometry->cluster_bits;
    if (geometry->extended_l2 && like < clusters)
        run->length += partial_cluster(image, at + like * QCOW2_EXTENDED_L2_ENTRY, &pattern, like, run->kind);
}

/* Data must lie within the file and apart from the L1 table; the run ends before the first cluster that does not. */
static int validate_data(const struct qcow2 *image, uint64_t guest, struct qcow2_run *run, struct imgtk_error *err)
{
    uint64_t wanted = run->length;
    bool inside = !has_data_file(image);
    if (inside && overlaps_l1(image, run->host_offset, wanted)) {
        if (image->l1_offset <= run->host_offset)
            return imgtk_fail(err, IMGTK_ECORRUPT,
                              "data of guest offset 0x%" PRIx64 " lie at 0x%" PRIx64 ", within the L1 table", guest,
                              run->host_offset);
        run->length = wanted = image->l1_offset - run->host_offset;
    }
    if ((inside || image->data_file) && !imgtk_range_fits(run->host_offset, wanted, image->data_size)) {
        uint64_t held = image->data_size > run->host_offset ? image->data_size - run->host_offset : 0;
        run->length = imgtk_round_down(held, UINT64_C(1) << image->geometry.subcluster_bits);
        if (run->length == 0)
            return imgtk_fail(err, IMGTK_ECORRUPT,
                              "data of guest offset 0x%" PRIx64 " lie at 0x%" PRIx64
                              ", beyond the end of the file at 0x%" PRIx64, guest, run->host_offset, image->data_size);
    }
    return 0;
}

int qcow2_slice_run(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset, uint64_t limit,
                    struct qcow2_run *out, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &image->geometry;
    if (!slice->entries) {
        *out = (struct qcow2_run){ slice->end - offset, QCOW2_KIND_UNALLOCATED, 0 };
        return 0;
    }
    const uint8_t *at = entry_at(image, slice, offset);
    uint64_t entry = imgtk_be64(at), bitmap = geometry->extended_l2 ? imgtk_be64(at + 8) : 0;
    uint64_t in_cluster = offset & (geometry->cluster_size - 1);
    int status = validate_entry(image, entry, bitmap, offset - in_cluster, err);
    if (status != 0)
        return status;
    uint64_t until = geometry->cluster_size; /* end of the run within the first cluster */
    if (entry & QCOW2_COMPRESSED) {
        out->kind = QCOW2_KIND_COMPRESSED;
    } else if (geometry->extended_l2) {
        unsigned first = (unsigned)(in_cluster >> geometry->subcluster_bits), count;
        out->kind = subcluster_kind(image, entry, bitmap, first, &count);
        until = (uint64_t)(first + count) << geometry->subcluster_bits;
    } else {
        out->kind = plain_kind(image, entry);
    }
    out->host_offset = (entry & QCOW2_OFFSET_MASK) + in_cluster;
    out->length = until - in_cluster;
    if (until == geometry->cluster_size)
        extend_run(image, slice, offset + out->length, limit, entry, out);
    out->length = imgtk_min_u64(out->length, slice->end - offset);
    return out->kind == QCOW2_KIND_DATA ? validate_data(image, offset, out, err) : 0;
}

/* ---- Extents ------------------------------------------------------------ */

static void set_plain(struct qcow2 *image, const struct qcow2_run *run, struct imgtk_extent *out)
{
    if (!image->data_file)
        return;
    out->flags |= IMGTK_EXTENT_PLAIN;
    out->file = image->data_file;
    out->host_offset = run->host_offset;
}

static void run_to_extent(struct qcow2 *image, const struct qcow2_run *run, struct imgtk_extent *out)
{
    *out = (struct imgtk_extent){ .length = run->length };
    switch (run->kind) {
    case QCOW2_KIND_COMPRESSED:
        out->kind = IMGTK_EXTENT_DATA;
        out->flags = IMGTK_EXTENT_COMPRESSED;
        break;
    case QCOW2_KIND_DATA:
        out->kind = IMGTK_EXTENT_DATA;
        out->flags = qcow2_is_preallocated(image) ? IMGTK_EXTENT_ASK_STORAGE : 0;
        set_plain(image, run, out);
        break;
    case QCOW2_KIND_ZERO:
        out->kind = IMGTK_EXTENT_ZERO;
        break;
    case QCOW2_KIND_ZERO_ALLOCATED:
        out->kind = IMGTK_EXTENT_ZERO;
        set_plain(image, run, out);
        break;
    case QCOW2_KIND_UNALLOCATED:
        out->kind = IMGTK_EXTENT_BACKING;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
        break;
    case QCOW2_KIND_UNALLOCATED_ALLOCATED:
        out->kind = IMGTK_EXTENT_BACKING;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
        set_plain(image, run, out);
        break;
    }
}

int qcow2_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct qcow2 *image = handle;
    struct qcow2_slice slice;
    struct qcow2_run run;
    uint64_t limit = length > image->size - offset ? image->size : offset + length;
    int status = qcow2_slice_get(image, offset, limit, &slice, err);
    if (status != 0)
        return status;
    status = qcow2_slice_run(image, &slice, offset, limit, &run, err);
    qcow2_slice_put(image, &slice);
    if (status == 0)
        run_to_extent(image, &run, out);
    return status;
}
