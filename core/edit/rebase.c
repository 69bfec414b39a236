/* Giving an image another backing file, and what differs from it to the image. */
#include <string.h>

#include "chain/image_internal.h"
#include "edit.h"
#include "imgtk/bytes.h"
#include "jobs/plan.h"
#include "jobs/readahead.h"
#include "same_place.h"

struct rebase {
    const struct imgtk_rebase *job;
    uint32_t unit;
    struct imgtk_plan plan;
    struct readahead *ahead;
    struct same_place places;
    struct imgtk_progress progress;
};

static int advance(struct rebase *rebase, uint64_t done, struct imgtk_error *err)
{
    const struct imgtk_rebase *job = rebase->job;
    rebase->progress.done = done;
    if ((job->progress && job->progress(job->progress_context, &rebase->progress)) || imgtk_cancel_reason(job->cancel))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    return 0;
}

/* ---- Content --------------------------------------------------------------------- */

static int read_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    const struct rebase *rebase = context;
    int status = imgtk_image_read(rebase->job->image, piece->ours, piece->length, piece->offset, err);
    return status ? status : edit_read_padded(rebase->job->backing, piece->theirs, piece->length, piece->offset, err);
}

/* How many bytes from `at` on are units that differ (or do not). */
static size_t like_run(const struct rebase *rebase, const struct readahead_piece *piece, size_t at, bool *differ)
{
    size_t end = at;
    while (end < piece->length) {
        size_t unit = piece->length - end < rebase->unit ? piece->length - end : rebase->unit;
        bool other = memcmp(piece->ours + end, piece->theirs + end, unit) != 0;
        if (end == at)
            *differ = other;
        else if (other != *differ)
            break;
        end += unit;
    }
    return end - at;
}

static int keep_run(struct rebase *rebase, const uint8_t *bytes, size_t length, uint64_t offset,
                    struct imgtk_error *err)
{
    rebase->progress.copied += length;
    if (imgtk_is_zero(bytes, length))
        return edit_zero(rebase->job->image, offset, length, err);
    return edit_write(rebase->job->image, bytes, length, offset, err);
}

static int keep_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    struct rebase *rebase = context;
    int status = 0;
    for (size_t at = 0; !status && at < piece->length;) {
        bool differ = false;
        size_t run = like_run(rebase, piece, at, &differ);
        if (differ)
            status = keep_run(rebase, piece->ours + at, run, piece->offset + at, err);
        at += run;
    }
    return status ? status : advance(rebase, piece->offset + piece->length, err);
}

/* ---- Extents ------------------------------------------------------------------------ */

/* What both take from one file below them need not be compared: *length, how much that is from the offset on. */
static int skip_shared(struct rebase *rebase, const struct plan_stretch *stretch, uint64_t offset, uint64_t *length,
                       struct imgtk_error *err)
{
    struct imgtk_image *const images[2] = { rebase->job->image, rebase->job->backing };
    struct imgtk_chain_extent extents[2] = { stretch->found };
    uint64_t size = images[1] ? imgtk_image_size(images[1]) : 0;
    *length = 0;
    if (stretch->kind != PLAN_DATA || offset >= size)
        return 0;
    int status = imgtk_walk_next(rebase->plan.backing_walk, offset, imgtk_min_u64(stretch->length, size - offset),
                                 &extents[1], err);
    if (!status && same_place(&rebase->places, images, extents))
        *length = imgtk_min_u64(stretch->length, extents[1].extent.length);
    return status;
}

/* One stretch of what the image takes from its backing file. Extents of other layers need not end with our units. */
static int keep_stretch(struct rebase *rebase, uint64_t offset, uint64_t end, uint64_t *next, struct imgtk_error *err)
{
    struct plan_stretch stretch = { 0 };
    uint64_t shared = 0;
    int status = plan_stretch(&rebase->plan, offset, &stretch, err);
    if (!status)
        status = skip_shared(rebase, &stretch, offset, &shared, err);
    if (status)
        return status;
    if (shared) {
        stretch.kind = PLAN_SKIP;
        stretch.length = shared;
    }
    uint64_t until = imgtk_min_u64(offset + stretch.length, end);
    if (until < end)
        until = imgtk_round_down(until, rebase->unit);
    bool split = until == offset;
    *next = split ? imgtk_min_u64(offset + rebase->unit, end) : until;
    if (split || stretch.kind == PLAN_DATA)
        return readahead_add(rebase->ahead, offset, *next - offset, err);
    if (stretch.kind == PLAN_ZERO)
        return edit_zero(rebase->job->image, offset, *next - offset, err);
    return 0;
}

static int keep_all(struct rebase *rebase, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &rebase->job->image->layers[0].public;
    int status = 0;
    for (uint64_t offset = 0; !status && offset < layer->size;) {
        struct imgtk_extent extent = { 0 };
        if (layer->driver->extent(layer->handle, offset, layer->size - offset, &extent, err))
            return edit_fail_prefix(rebase->job->image, err);
        uint64_t end = offset + imgtk_min_u64(extent.length, layer->size - offset);
        while (!status && extent.kind == IMGTK_EXTENT_BACKING && offset < end)
            status = keep_stretch(rebase, offset, end, &offset, err);
        offset = status ? offset : end;
        if (!status && extent.kind != IMGTK_EXTENT_BACKING)
            status = advance(rebase, readahead_oldest(rebase->ahead, offset), err);
    }
    return status ? status : readahead_drain(rebase->ahead, err);
}

static int keep_differences(struct rebase *rebase, struct imgtk_error *err)
{
    struct imgtk_image *const images[] = { rebase->job->image };
    struct plan_options options = { .backing = rebase->job->backing };
    struct readahead_options ahead = { .read = read_piece, .take = keep_piece, .context = rebase, .theirs = true,
                                       .workers = image_workers(images[0]) };
    struct source source;
    int status = source_init(&source, images, 1, err);
    if (!status)
        status = plan_init(&rebase->plan, &source, &options, err);
    if (status)
        return status;
    if (rebase->plan.shared_below != SIZE_MAX)
        status = imgtk_fail(err, IMGTK_EINVAL, "%s: the new backing file '%s' is an overlay of the image itself",
                            images[0]->layers[0].public.name, rebase->job->backing_name);
    if (!status)
        status = readahead_new(&ahead, &rebase->ahead, err);
    if (!status)
        status = keep_all(rebase, err);
    readahead_free(rebase->ahead);
    plan_destroy(&rebase->plan);
    return status;
}

int imgtk_rebase(const struct imgtk_rebase *job, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &job->image->layers[0].public;
    struct rebase rebase = { .job = job, .progress = { .phase = "rebase", .total = layer->size } };
    struct edit_below below = { .image = job->image, .depth = 1, .after = job->backing, .end = UINT64_MAX,
                                .what = "another backing file", .cancel = job->cancel };
    int status = job->unsafe ? 0 : edit_keep_snapshots(&below, err);
    if (!status)
        status = edit_begin(job->image, true, &rebase.unit, err);
    if (!status && layer->driver->edit_backing(layer->handle, job->backing_name, job->backing_format, err))
        status = edit_fail_prefix(job->image, err);
    if (!status && !job->unsafe)
        status = keep_differences(&rebase, err);
    return status ? status : edit_commit(job->image, err);
}
