/* Guest bytes: extents of the disk, plain reads, and grains that are inflated in batches. */
#include <stdlib.h>
#include <string.h>

#include "vmdk.h"

#define BATCH_GRAINS 64u           /* grains that one request to the storage may cover */
#define BATCH_BYTES (4u << 20)     /* and the most it may read for them */
/* What a deflated grain may take at most; generous, since some writers are not careful. */
#define COMPRESSED_BOUND(grain) ((grain) * 2)
_Static_assert(COMPRESSED_BOUND(VMDK_MAX_COMPRESSED_GRAIN) + VMDK_SECTOR < BATCH_BYTES, "a batch holds a grain");

static int refuse_unopened(const struct vmdk_extent *extent, struct imgtk_error *err)
{
    return imgtk_fail(err, IMGTK_EREFUSED, "extent '%s' lies in another file, and no reference is followed here",
                      extent->name);
}

/* ---- Extents ---------------------------------------------------------------- */

static void describe_grain(const struct vmdk_extent *extent, uint64_t value, uint64_t within, struct imgtk_extent *out)
{
    if (value == VMDK_GRAIN_NONE) {
        out->kind = IMGTK_EXTENT_BACKING;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
    } else if (value == VMDK_GRAIN_ZERO) {
        out->kind = IMGTK_EXTENT_ZERO;
        out->flags = 0;
    } else {
        out->kind = IMGTK_EXTENT_DATA;
        out->flags = extent->sparse.compressed ? IMGTK_EXTENT_COMPRESSED : IMGTK_EXTENT_PLAIN;
        out->file = extent->sparse.compressed ? NULL : extent->file;
        out->host_offset = extent->sparse.compressed ? 0 : value + within;
    }
}

/* Whether a grain continues what a run of `grains` grains, the first of which has the value `first`, holds. */
static bool continues(const struct vmdk_extent *extent, uint64_t first, uint64_t grains, uint64_t next)
{
    if (first <= VMDK_GRAIN_ZERO)
        return next == first;
    if (extent->sparse.compressed)
        return next > VMDK_GRAIN_ZERO;
    return next == first + grains * extent->sparse.grain;
}

/* offset: within the extent. A damaged table ends the run in front of it and is told of when it is asked for itself. */
static int sparse_extent(struct vmdk_image *image, struct vmdk_extent *extent, uint64_t offset, uint64_t length,
                         struct imgtk_extent *out, struct imgtk_error *err)
{
    const uint64_t grain = extent->sparse.grain;
    uint64_t index = offset / grain, first = 0, value = 0, run = 0;
    uint64_t limit = imgtk_min_u64(offset + length, extent->length);
    struct vmdk_cursor cursor = { .image = image, .extent = extent };
    int status = vmdk_cursor_get(&cursor, index, &first, &run, err);
    uint64_t grains = run;
    while (!status && (index + grains) * grain < limit) {
        if (vmdk_cursor_get(&cursor, index + grains, &value, &run, NULL) ||
            !continues(extent, first, grains, value))
            break;
        grains += run;
    }
    vmdk_cursor_end(&cursor);
    if (status)
        return status;
    describe_grain(extent, first, offset % grain, out);
    out->length = imgtk_min_u64((index + grains) * grain, extent->length) - offset;
    return 0;
}

int vmdk_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err)
{
    struct vmdk_image *image = handle;
    struct vmdk_extent *extent = vmdk_extent_find(image, offset);
    offset -= extent->start;
    length = imgtk_min_u64(length, extent->length - offset);
    memset(out, 0, sizeof(*out));
    out->length = extent->length - offset;
    if (extent->type == VMDK_TYPE_ZERO) {
        out->kind = IMGTK_EXTENT_ZERO;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
        return 0;
    }
    if (!extent->file)
        return refuse_unopened(extent, err);
    if (vmdk_is_sparse(extent))
        return sparse_extent(image, extent, offset, length, out, err);
    out->kind = IMGTK_EXTENT_DATA;
    out->flags = IMGTK_EXTENT_PLAIN | IMGTK_EXTENT_ASK_STORAGE;
    out->file = extent->file;
    out->host_offset = extent->host_offset + offset;
    return 0;
}

/* ---- Compressed grains -------------------------------------------------------- */

/* Neighbouring compressed grains of one extent, with the host bytes that hold them. */
struct batch {
    struct vmdk_image *image;
    struct vmdk_extent *extent;
    struct imgtk_codec *codec;
    uint64_t first;               /* grain */
    size_t count;
    uint64_t at[BATCH_GRAINS];    /* host offsets */
    uint64_t begin, end;          /* host range that `bytes` holds */
    uint8_t *bytes;
    uint8_t *spare;               /* room for one grain, made when the caller wants part of one */
};

/* The bytes of a grain that count: the last one of a disk may be cut. */
static uint64_t grain_length(const struct vmdk_extent *extent, uint64_t grain)
{
    return imgtk_min_u64(extent->sparse.grain, extent->sparse.capacity - grain * extent->sparse.grain);
}

/*
 * Takes grains from batch->first on, as far as they ascend in the file and one
 * request can cover them. Where the last one ends is not known: it cannot
 * reach beyond the grain that follows it, if one does.
 */
static int collect(struct batch *batch, uint64_t wanted, struct imgtk_error *err)
{
    struct vmdk_cursor cursor = { .image = batch->image, .extent = batch->extent };
    const uint64_t bound = COMPRESSED_BOUND(batch->extent->sparse.grain) + VMDK_SECTOR;
    uint64_t grains = imgtk_div_round_up(batch->extent->sparse.capacity, batch->extent->sparse.grain);
    uint64_t value = 0, run = 0, previous = 0;
    int status = 0;
    batch->count = 0;
    batch->end = 0;
    for (uint64_t i = 0; i <= wanted && batch->first + i < grains; i++) {
        status = vmdk_cursor_get(&cursor, batch->first + i, &value, &run, i < wanted ? err : NULL);
        if (status)
            break;
        bool ascends = value > previous && value - previous <= bound;
        if (i > 0 && (value <= VMDK_GRAIN_ZERO || !ascends))
            break;
        if (i == wanted || i == BATCH_GRAINS || (i > 0 && value - batch->at[0] > BATCH_BYTES - bound)) {
            batch->end = value;
            break;
        }
        batch->at[batch->count++] = previous = value;
    }
    vmdk_cursor_end(&cursor);
    if (batch->count == wanted)
        status = 0; /* only the one behind them is not to be had */
    batch->begin = batch->at[0];
    if (batch->end == 0)
        batch->end = imgtk_min_u64(previous + bound, batch->extent->file_size);
    return status;
}

/* The deflated bytes of a grain at `at` in the batch, marker checked; *length as far as they are known. */
static int grain_payload(const struct batch *batch, size_t number, const uint8_t **payload, size_t *length,
                         struct imgtk_error *err)
{
    const struct vmdk_sparse *sparse = &batch->extent->sparse;
    const uint8_t *marker = batch->bytes + (batch->at[number] - batch->begin);
    size_t room = (size_t)(batch->end - batch->at[number]);
    uint64_t grain = batch->first + number;
    if (!sparse->markers) {
        *payload = marker;
        *length = (size_t)imgtk_min_u64(room, COMPRESSED_BOUND(sparse->grain));
        return 0;
    }
    uint64_t lba = imgtk_le64(marker + VMDK_M_VALUE);
    uint32_t size = imgtk_le32(marker + VMDK_M_SIZE);
    if (lba != grain * (sparse->grain / VMDK_SECTOR))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the marker at %llu is of sector %llu, not of %llu as the grain table "
                          "says", (unsigned long long)batch->at[number], (unsigned long long)lba,
                          (unsigned long long)(grain * (sparse->grain / VMDK_SECTOR)));
    if (size == 0 || size > room - VMDK_M_GRAIN_DATA)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the grain at %llu has %u compressed bytes; there is room for %zu",
                          (unsigned long long)batch->at[number], size, room - VMDK_M_GRAIN_DATA);
    *payload = marker + VMDK_M_GRAIN_DATA;
    *length = size;
    return 0;
}

/* Writers disagree on the last grain of a disk: some deflate a whole one, some only what counts. */
static int inflate_last(const struct batch *batch, const uint8_t *in, size_t in_length, uint8_t *out, size_t length,
                        struct imgtk_error *err)
{
    if (imgtk_codec_decompress(batch->codec, in, in_length, out, (size_t)batch->extent->sparse.grain, NULL) == 0)
        return 0;
    return imgtk_codec_decompress(batch->codec, in, in_length, out, length, err);
}

static int make_spare(struct batch *batch, struct imgtk_error *err)
{
    if (!batch->spare)
        batch->spare = malloc((size_t)batch->extent->sparse.grain);
    return batch->spare ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "no memory for a grain");
}

/* Inflates grain `number` of the batch and copies the part [from, to) of it. */
static int inflate_grain(struct batch *batch, size_t number, uint64_t from, uint64_t to, uint8_t *out,
                         struct imgtk_error *err)
{
    const uint8_t *payload = NULL;
    size_t length = 0;
    int status = grain_payload(batch, number, &payload, &length, err);
    if (status)
        return status;
    uint64_t grain = batch->extent->sparse.grain, valid = grain_length(batch->extent, batch->first + number);
    if (from == 0 && to == grain) {
        status = imgtk_codec_decompress(batch->codec, payload, length, out, (size_t)grain, err);
    } else {
        status = make_spare(batch, err);
        if (!status)
            status = valid < grain ? inflate_last(batch, payload, length, batch->spare, (size_t)valid, err)
                                   : imgtk_codec_decompress(batch->codec, payload, length, batch->spare,
                                                            (size_t)grain, err);
        if (!status)
            memcpy(out, batch->spare + from, (size_t)(to - from));
    }
    return status ? imgtk_fail_prefix(err, "the grain at %llu", (unsigned long long)batch->at[number]) : 0;
}

static int read_batch(struct batch *batch, uint8_t *buf, uint64_t length, uint64_t offset, uint64_t *done,
                      struct imgtk_error *err)
{
    const uint64_t grain = batch->extent->sparse.grain;
    batch->first = offset / grain;
    int status = collect(batch, (offset + length - 1) / grain - batch->first + 1, err);
    if (!status)
        status = imgtk_storage_pread(batch->extent->file, batch->bytes, (size_t)(batch->end - batch->begin),
                                     batch->begin, err);
    *done = 0;
    for (size_t i = 0; !status && i < batch->count; i++) {
        uint64_t start = (batch->first + i) * grain;
        uint64_t from = offset > start ? offset - start : 0;
        uint64_t to = imgtk_min_u64(offset + length - start, grain);
        status = inflate_grain(batch, i, from, to, buf + *done, err);
        *done += to - from;
    }
    return status;
}

static int read_compressed(struct vmdk_image *image, struct vmdk_extent *extent, uint8_t *buf, uint64_t length,
                           uint64_t offset, struct imgtk_error *err)
{
    const uint64_t bound = COMPRESSED_BOUND(extent->sparse.grain) + VMDK_SECTOR;
    uint64_t grains = length / extent->sparse.grain + 2;
    struct batch batch = { .image = image, .extent = extent, .codec = imgtk_codec_take(image->codecs) };
    batch.bytes = malloc((size_t)imgtk_min_u64(BATCH_BYTES + bound, grains * bound));
    int status = batch.codec && batch.bytes ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "no memory for compressed grains");
    while (!status && length > 0) {
        uint64_t done = 0;
        status = read_batch(&batch, buf, length, offset, &done, err);
        buf += done;
        offset += done;
        length -= done;
    }
    free(batch.bytes);
    free(batch.spare);
    if (batch.codec)
        imgtk_codec_give(image->codecs, batch.codec);
    return status;
}

/* ---- Reading ------------------------------------------------------------------ */

static int read_run(struct vmdk_image *image, const struct imgtk_extent *run, uint8_t *buf, uint64_t length,
                    uint64_t offset, struct imgtk_error *err)
{
    if (run->kind != IMGTK_EXTENT_DATA) {
        memset(buf, 0, (size_t)length);
        return 0;
    }
    if (run->flags & IMGTK_EXTENT_PLAIN)
        return imgtk_storage_pread(run->file, buf, (size_t)length, run->host_offset, err);
    struct vmdk_extent *extent = vmdk_extent_find(image, offset);
    return read_compressed(image, extent, buf, length, offset - extent->start, err);
}

int vmdk_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    uint8_t *at = buf;
    uint64_t left = length;
    while (left > 0) {
        struct imgtk_extent run;
        int status = vmdk_extent(handle, offset, left, &run, err);
        uint64_t part = status ? 0 : imgtk_min_u64(left, run.length);
        if (!status)
            status = read_run(handle, &run, at, part, offset, err);
        if (status)
            return status;
        at += part;
        offset += part;
        left -= part;
    }
    return 0;
}
