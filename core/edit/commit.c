/* Writing what an overlay holds into the file below it. */
#include <string.h>

#include "chain/image_internal.h"
#include "edit.h"
#include "imgtk/bytes.h"
#include "jobs/readahead.h"

struct commit {
    const struct imgtk_commit *job;
    struct imgtk_image *base;  /* opened anew, for writing */
    uint64_t base_size;        /* of the disk below, after it has grown */
    uint32_t unit;             /* of the base */
    struct imgtk_walk *walk;   /* of the image */
    uint64_t done;             /* what lies before it has been written */
    struct readahead *ahead;
    struct imgtk_progress progress;
};

static int advance(struct commit *commit, uint64_t done, struct imgtk_error *err)
{
    const struct imgtk_commit *job = commit->job;
    if (done > commit->progress.done) /* a unit of the base may begin before what was passed over */
        commit->progress.done = done;
    if ((job->progress && job->progress(job->progress_context, &commit->progress)) || imgtk_cancel_reason(job->cancel))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    return 0;
}

/* ---- Content --------------------------------------------------------------------- */

/* Units of the base that reach beyond the image keep there what the base has. */
static int read_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    const struct commit *commit = context;
    uint64_t size = imgtk_image_size(commit->job->image), offset = piece->offset;
    size_t ours = offset < size ? (size_t)imgtk_min_u64(piece->length, size - offset) : 0;
    uint64_t from = offset + ours, end = imgtk_min_u64(offset + piece->length, imgtk_image_size(commit->base));
    memset(piece->ours + ours, 0, piece->length - ours);
    int status = imgtk_image_read(commit->job->image, piece->ours, ours, offset, err);
    if (!status && end > from)
        status = imgtk_image_read(commit->base, piece->ours + ours, (size_t)(end - from), from, err);
    return status;
}

static int write_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    struct commit *commit = context;
    int status = edit_write(commit->base, piece->ours, piece->length, piece->offset, err);
    commit->progress.copied += piece->length;
    return status ? status : advance(commit, imgtk_min_u64(piece->offset + piece->length, commit->progress.total), err);
}

/* All units that the range touches, but for those that an earlier range did. */
static int write_range(struct commit *commit, uint64_t offset, uint64_t end, struct imgtk_error *err)
{
    offset = imgtk_round_down(offset, commit->unit);
    if (offset < commit->done)
        offset = commit->done;
    end = imgtk_min_u64(imgtk_round_up(end, commit->unit), commit->base_size);
    if (offset >= end)
        return 0;
    commit->done = end;
    return readahead_add(commit->ahead, offset, end - offset, err);
}

/* Whole units become zeroes; those at the ends hold something else too. */
static int zero_range(struct commit *commit, uint64_t offset, uint64_t end, struct imgtk_error *err)
{
    uint64_t first = imgtk_round_up(offset, commit->unit);
    uint64_t last = end == commit->base_size ? end : imgtk_round_down(end, commit->unit);
    if (first >= last)
        return write_range(commit, offset, end, err);
    int status = first > offset ? write_range(commit, offset, first, err) : 0;
    if (!status)
        status = edit_zero(commit->base, first, last - first, err);
    commit->done = last;
    return !status && last < end ? write_range(commit, last, end, err) : status;
}

static int commit_extents(struct commit *commit, struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(commit->job->image);
    int status = 0;
    for (uint64_t offset = 0; !status && offset < size;) {
        struct imgtk_chain_extent found;
        status = imgtk_walk_next(commit->walk, offset, size - offset, &found, err);
        if (status)
            break;
        uint64_t end = offset + found.extent.length;
        bool zero = found.extent.kind == IMGTK_EXTENT_ZERO;
        /* Behind its end the base reads as zeroes when it has grown. */
        bool there = zero && offset >= imgtk_image_size(commit->base);
        if (found.depth < commit->job->depth && !there)
            status = zero ? zero_range(commit, offset, end, err) : write_range(commit, offset, end, err);
        offset = end;
        if (!status && zero)
            status = advance(commit, readahead_oldest(commit->ahead, offset), err);
    }
    return status ? status : readahead_drain(commit->ahead, err);
}

/* ---- The job ------------------------------------------------------------------------ */

static int write_base(struct commit *commit, struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(commit->job->image);
    struct readahead_options options = { .read = read_piece, .take = write_piece, .context = commit,
                                         .workers = image_workers(commit->job->image) };
    commit->base_size = imgtk_image_size(commit->base);
    int status = edit_begin(commit->base, false, &commit->unit, err);
    if (!status && commit->base_size < size) {
        commit->base_size = size;
        status = edit_grow(commit->base, size, commit->unit, NULL, err);
    }
    if (!status)
        status = imgtk_walk_new(commit->job->image, &commit->walk, err);
    if (!status)
        status = readahead_new(&options, &commit->ahead, err);
    if (!status)
        status = commit_extents(commit, err);
    readahead_free(commit->ahead);
    imgtk_walk_free(commit->walk);
    return status ? status : edit_commit(commit->base, err);
}

static int empty(struct imgtk_image *image, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &image->layers[0].public;
    uint32_t unit = 0;
    int status = edit_begin(image, true, &unit, err);
    if (!status && layer->driver->edit_empty(layer->handle, err))
        status = edit_fail_prefix(image, err);
    return status ? status : edit_commit(image, err);
}

int imgtk_commit(const struct imgtk_commit *job, struct imgtk_error *err)
{
    struct commit commit = { .job = job, .progress = { .phase = "commit", .total = imgtk_image_size(job->image) } };
    if (job->depth == 0 || job->depth >= job->image->count || (job->depth > 1 && !job->keep))
        return imgtk_fail(err, IMGTK_EINVAL, "there is no layer %zu to commit into", job->depth);
    struct edit_below below = { .image = job->image, .depth = job->depth, .after = job->image,
                                .end = imgtk_image_size(job->image), .what = "a commit", .cancel = job->cancel };
    int status = edit_keep_snapshots(&below, err);
    if (!status)
        status = image_open_below(job->image, job->depth, &commit.base, err);
    if (!status)
        status = write_base(&commit, err);
    imgtk_image_close(commit.base);
    return status || job->keep ? status : empty(job->image, err);
}
