/* Whether an image that comes through a pipe can be read as it comes: its data lie in the file as in the guest. */
#include "qcow2.h"

/* Goes over the clusters of a run that hold compressed data, one by one: each has a place of its own. */
static bool streams_ascend(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset, uint64_t length,
                           uint64_t *last)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    for (uint64_t guest = offset; guest < offset + length; guest += cluster_size) {
        uint64_t start = qcow2_compressed(&image->geometry, qcow2_slice_entry(image, slice, guest)).offset;
        if (start < *last)
            return false;
        *last = start;
    }
    return true;
}

static bool run_ascends(const struct qcow2 *image, const struct qcow2_slice *slice, const struct qcow2_run *run,
                        uint64_t offset, uint64_t *last)
{
    if (run->kind == QCOW2_KIND_COMPRESSED)
        return streams_ascend(image, slice, offset, run->length, last);
    if (run->kind != QCOW2_KIND_DATA)
        return true;
    bool ascends = run->host_offset >= *last;
    *last = run->host_offset + run->length;
    return ascends;
}

static int slice_ascends(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t *last, bool *out,
                         struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t offset = slice->start; !status && *out && offset < slice->end;) {
        struct qcow2_run run;
        status = qcow2_slice_run(image, slice, offset, slice->end, &run, err);
        if (!status)
            *out = run_ascends(image, slice, &run, offset, last);
        offset += run.length;
    }
    return status;
}

int qcow2_in_order(void *handle, bool *out, struct imgtk_error *err)
{
    struct qcow2 *image = handle;
    uint64_t last = 0; /* host */
    int status = 0;
    *out = true;
    if (image->data_file != image->file) /* the pipe brings nothing but tables */
        return 0;
    for (uint64_t offset = 0; !status && *out && offset < image->size;) {
        struct qcow2_slice slice;
        status = qcow2_slice_get(image, offset, image->size, &slice, err);
        if (status)
            break;
        if (slice.entries)
            status = slice_ascends(image, &slice, &last, out, err);
        qcow2_slice_put(image, &slice);
        offset = slice.end;
    }
    return status;
}
