/* Reading guest bytes: plain clusters in one piece, compressed ones in groups. */
#include <inttypes.h>
#include <string.h>

#include "qcow2.h"
#include "scratch.h"

/* Neighbouring compressed clusters are read from the file in one go up to this many bytes, a few unused ones included. */
enum { MAX_GROUP_BYTES = 512 << 10, MAX_GROUP_WASTE = 32 << 10 };

static int read_data(struct qcow2 *image, uint8_t *buf, size_t length, uint64_t host_offset, struct imgtk_error *err)
{
    if (!image->data_file)
        return imgtk_fail(err, IMGTK_EREFUSED, "the data lie in the external data file '%s', which was not opened",
                          image->extensions.data_file);
    return imgtk_storage_pread(image->data_file, buf, length, host_offset, err);
}

/* ---- Compressed clusters ---------------------------------------------------- */

/* What is left of a request within one slice; all of it lies in compressed clusters. */
struct request {
    struct qcow2 *image;
    const struct qcow2_slice *slice;
    struct qcow2_scratch *scratch;
    uint8_t *buf;
    uint64_t offset, end; /* guest */
};

/* Compressed clusters that follow each other in the guest and lie near each other in the file. */
struct group {
    uint64_t start, end; /* host */
    uint64_t clusters;
};

/* Where the stream of the cluster at `guest` lies; clipped at the end of the file, which a stream need not fill. */
static int locate(const struct qcow2 *image, uint64_t entry, uint64_t guest, struct qcow2_compressed *out,
                  struct imgtk_error *err)
{
    *out = qcow2_compressed(&image->geometry, entry);
    if (out->offset >= image->file_size)
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "compressed data of guest offset 0x%" PRIx64 " lie at 0x%" PRIx64
                          ", beyond the end of the file at 0x%" PRIx64, guest, out->offset, image->file_size);
    out->length = imgtk_min_u64(out->length, image->file_size - out->offset);
    if (out->offset < image->header.header_length ||
        (out->offset < image->l1_offset + image->l1_bytes && image->l1_offset < out->offset + out->length))
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "compressed data of guest offset 0x%" PRIx64 " lie at 0x%" PRIx64
                          ", within the header or the L1 table", guest, out->offset);
    return 0;
}

static bool join(struct group *group, uint64_t *used, const struct qcow2_compressed *next)
{
    uint64_t start = imgtk_min_u64(group->start, next->offset);
    uint64_t end = group->end > next->offset + next->length ? group->end : next->offset + next->length;
    if (end - start > MAX_GROUP_BYTES || end - start > *used + next->length + MAX_GROUP_WASTE)
        return false;
    group->start = start;
    group->end = end;
    *used += next->length;
    return true;
}

static int gather(const struct request *request, struct group *out, struct imgtk_error *err)
{
    const struct qcow2 *image = request->image;
    uint64_t cluster_size = image->geometry.cluster_size;
    uint64_t guest = imgtk_round_down(request->offset, cluster_size);
    struct qcow2_compressed stream;
    int status = locate(image, qcow2_slice_entry(image, request->slice, guest), guest, &stream, err);
    if (status != 0)
        return status;
    *out = (struct group){ stream.offset, stream.offset + stream.length, 1 };
    uint64_t used = stream.length;
    /* A bad cluster ends the group: it is reported when its turn comes, after the good ones before it. */
    for (guest += cluster_size; guest < request->end; guest += cluster_size, out->clusters++)
        if (locate(image, qcow2_slice_entry(image, request->slice, guest), guest, &stream, NULL) != 0 ||
            !join(out, &used, &stream))
            break;
    return 0;
}

static int decompress(const struct request *request, const struct group *group, uint64_t entry, void *out,
                      struct imgtk_error *err)
{
    const struct qcow2 *image = request->image;
    struct qcow2_compressed stream = qcow2_compressed(&image->geometry, entry);
    size_t length = (size_t)imgtk_min_u64(stream.length, group->end - stream.offset);
    int status = imgtk_codec_decompress(request->scratch->codec, request->scratch->input + (stream.offset - group->start),
                                        length, out, (size_t)image->geometry.cluster_size, err);
    return status == 0 ? 0 : imgtk_fail_prefix(err, "compressed cluster of guest offset 0x%" PRIx64 " at 0x%" PRIx64,
                                               request->offset, stream.offset);
}

static void advance(struct request *request, uint64_t length)
{
    request->buf += length;
    request->offset += length;
}

static void copy_part(struct request *request)
{
    uint64_t in_cluster = request->offset & (request->image->geometry.cluster_size - 1);
    uint64_t length = imgtk_min_u64(request->image->geometry.cluster_size - in_cluster, request->end - request->offset);
    memcpy(request->buf, request->scratch->cluster + in_cluster, (size_t)length);
    advance(request, length);
}

static bool wants_whole_cluster(const struct request *request)
{
    uint64_t cluster_size = request->image->geometry.cluster_size;
    return (request->offset & (cluster_size - 1)) == 0 && request->end - request->offset >= cluster_size;
}

/* Delivers the next cluster of the group, straight to its place when all of it is wanted. */
static int deliver(struct request *request, const struct group *group, struct imgtk_error *err)
{
    struct qcow2_scratch *scratch = request->scratch;
    uint64_t entry = qcow2_slice_entry(request->image, request->slice, request->offset);
    if (wants_whole_cluster(request)) {
        int status = decompress(request, group, entry, request->buf, err);
        if (status == 0)
            advance(request, request->image->geometry.cluster_size);
        return status;
    }
    scratch->cluster_entry = 0;
    if (!qcow2_scratch_cluster(request->image->scratch, scratch))
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a cluster");
    int status = decompress(request, group, entry, scratch->cluster, err);
    if (status != 0)
        return status;
    scratch->cluster_entry = entry;
    copy_part(request);
    return 0;
}

/* The last stream need not fill its last sector; how much of that a pipe holds is known only now. */
static int read_streams(const struct request *request, size_t length, uint64_t start, struct imgtk_error *err)
{
    const struct qcow2 *image = request->image;
    if (image->file_size != QCOW2_NO_SIZE)
        return imgtk_storage_pread(image->file, request->scratch->input, length, start, err);
    size_t done;
    int status = imgtk_storage_pread_some(image->file, request->scratch->input, length, start, &done, err);
    memset(request->scratch->input + done, 0, length - done);
    return status;
}

static int read_group(struct request *request, struct imgtk_error *err)
{
    struct group group;
    int status = gather(request, &group, err);
    if (status != 0)
        return status;
    size_t length = (size_t)(group.end - group.start);
    if (!qcow2_scratch_input(request->scratch, length))
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu bytes of compressed data", length);
    status = read_streams(request, length, group.start, err);
    for (uint64_t i = 0; i < group.clusters && status == 0; i++)
        status = deliver(request, &group, err);
    return status;
}

static bool is_at_hand(const struct request *request)
{
    const struct qcow2_scratch *scratch = request->scratch;
    return scratch->cluster_entry != 0 && !wants_whole_cluster(request) &&
           scratch->cluster_entry == qcow2_slice_entry(request->image, request->slice, request->offset);
}

static int read_compressed(struct qcow2 *image, const struct qcow2_slice *slice, uint8_t *buf, uint64_t offset,
                           uint64_t length, struct imgtk_error *err)
{
    struct request request = { image, slice, qcow2_scratch_take(image->scratch), buf, offset, offset + length };
    if (!request.scratch)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for decompression");
    int status = 0;
    while (request.offset < request.end && status == 0) {
        if (is_at_hand(&request))
            copy_part(&request);
        else
            status = read_group(&request, err);
    }
    qcow2_scratch_give(image->scratch, request.scratch);
    return status;
}

/* ---- All kinds ---------------------------------------------------------------- */

static int read_run(struct qcow2 *image, const struct qcow2_slice *slice, const struct qcow2_run *run, uint8_t *buf,
                    uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    switch (run->kind) {
    case QCOW2_KIND_DATA:
        return read_data(image, buf, (size_t)length, run->host_offset, err);
    case QCOW2_KIND_COMPRESSED:
        return read_compressed(image, slice, buf, offset, length, err);
    default:
        memset(buf, 0, (size_t)length);
        return 0;
    }
}

static int read_slice(struct qcow2 *image, const struct qcow2_slice *slice, uint8_t *buf, uint64_t offset,
                      uint64_t end, struct imgtk_error *err)
{
    while (offset < end) {
        struct qcow2_run run;
        int status = qcow2_slice_run(image, slice, offset, end, &run, err);
        if (status != 0)
            return status;
        uint64_t length = imgtk_min_u64(run.length, end - offset);
        status = read_run(image, slice, &run, buf, offset, length, err);
        if (status != 0)
            return status;
        buf += length;
        offset += length;
    }
    return 0;
}

int qcow2_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct qcow2 *image = handle;
    uint8_t *at = buf;
    uint64_t end = offset + length;
    while (offset < end) {
        struct qcow2_slice slice;
        int status = qcow2_slice_get(image, offset, end, &slice, err);
        if (status != 0)
            return status;
        uint64_t until = imgtk_min_u64(end, slice.end);
        status = read_slice(image, &slice, at, offset, until, err);
        qcow2_slice_put(image, &slice);
        if (status != 0)
            return status;
        at += until - offset;
        offset = until;
    }
    return 0;
}
