/* Giving an image another backing file, and what differs from it to the image. */
#include <stdlib.h>
#include <string.h>

#include "edit.h"
#include "image_internal.h"
#include "imgtk/bytes.h"
#include "plan.h"
#include "zero.h"

#define PIECE (2u << 20) /* what is read at once; the largest unit */

struct rebase {
    const struct imgtk_rebase *job;
    uint32_t unit;
    struct imgtk_plan plan;
    uint8_t *ours, *theirs; /* PIECE bytes each */
    struct imgtk_progress progress;
};

static int advance(struct rebase *rebase, uint64_t done, struct imgtk_error *err)
{
    const struct imgtk_rebase *job = rebase->job;
    rebase->progress.done = done;
    if ((job->progress && job->progress(job->progress_context, &rebase->progress)) || (job->cancel && *job->cancel))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    return 0;
}

/* ---- Content --------------------------------------------------------------------- */

/* Past its end, and where there is none, the new backing file reads as zeroes. */
static int read_theirs(struct rebase *rebase, uint64_t offset, size_t length, struct imgtk_error *err)
{
    struct imgtk_image *backing = rebase->job->backing;
    uint64_t size = backing ? imgtk_image_size(backing) : 0;
    size_t present = offset < size ? (size_t)imgtk_min_u64(length, size - offset) : 0;
    memset(rebase->theirs + present, 0, length - present);
    return present ? imgtk_walk_read(rebase->plan.backing_walk, rebase->theirs, present, offset, err) : 0;
}

static size_t unit_at(const struct rebase *rebase, size_t at, size_t length)
{
    return length - at < rebase->unit ? length - at : rebase->unit;
}

/* How many bytes from `at` on are units that differ (or do not). */
static size_t like_run(const struct rebase *rebase, size_t at, size_t length, bool *differ)
{
    size_t end = at;
    while (end < length) {
        size_t unit = unit_at(rebase, end, length);
        bool other = memcmp(rebase->ours + end, rebase->theirs + end, unit) != 0;
        if (end == at)
            *differ = other;
        else if (other != *differ)
            break;
        end += unit;
    }
    return end - at;
}

static int keep_piece(struct rebase *rebase, uint64_t offset, size_t length, struct imgtk_error *err)
{
    int status = source_walk_read(rebase->plan.walk, rebase->ours, length, offset, err);
    if (!status)
        status = read_theirs(rebase, offset, length, err);
    for (size_t at = 0; !status && at < length;) {
        bool differ = false;
        size_t run = like_run(rebase, at, length, &differ);
        if (differ && bytes_are_zero(rebase->ours + at, run))
            status = edit_zero(rebase->job->image, offset + at, run, err);
        else if (differ)
            status = edit_write(rebase->job->image, rebase->ours + at, run, offset + at, err);
        if (differ)
            rebase->progress.copied += run;
        at += run;
    }
    return status;
}

static int keep_content(struct rebase *rebase, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t at = 0; !status && at < length; at += PIECE) {
        status = keep_piece(rebase, offset + at, (size_t)imgtk_min_u64(length - at, PIECE), err);
        if (!status)
            status = advance(rebase, offset + at, err);
    }
    return status;
}

/* ---- Extents ------------------------------------------------------------------------ */

/* One stretch of what the image takes from its backing file. Extents of other layers need not end with our units. */
static int keep_stretch(struct rebase *rebase, uint64_t offset, uint64_t end, uint64_t *next, struct imgtk_error *err)
{
    struct plan_stretch stretch = { 0 };
    int status = plan_stretch(&rebase->plan, offset, &stretch, err);
    if (status)
        return status;
    uint64_t until = imgtk_min_u64(offset + stretch.length, end);
    if (until < end)
        until = imgtk_round_down(until, rebase->unit);
    bool split = until == offset;
    *next = split ? imgtk_min_u64(offset + rebase->unit, end) : until;
    if (split || stretch.kind == PLAN_DATA)
        return keep_content(rebase, offset, *next - offset, err);
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
        if (!status)
            status = advance(rebase, offset, err);
    }
    return status;
}

static int keep_differences(struct rebase *rebase, struct imgtk_error *err)
{
    struct imgtk_image *const images[] = { rebase->job->image };
    struct plan_options options = { .backing = rebase->job->backing };
    struct source source;
    int status = source_init(&source, images, 1, err);
    if (!status)
        status = plan_init(&rebase->plan, &source, &options, err);
    if (status)
        return status;
    if (rebase->plan.shared_below != SIZE_MAX)
        status = imgtk_fail(err, IMGTK_EINVAL, "%s: the new backing file '%s' is an overlay of the image itself",
                            images[0]->layers[0].public.name, rebase->job->backing_name);
    rebase->ours = malloc(PIECE);
    rebase->theirs = malloc(PIECE);
    if (!status && (!rebase->ours || !rebase->theirs))
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (!status)
        status = keep_all(rebase, err);
    free(rebase->ours);
    free(rebase->theirs);
    plan_destroy(&rebase->plan);
    return status;
}

int imgtk_rebase(const struct imgtk_rebase *job, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = &job->image->layers[0].public;
    struct rebase rebase = { .job = job, .progress = { .phase = "rebase", .total = layer->size } };
    int status = edit_begin(job->image, &rebase.unit, err);
    if (!status && layer->driver->edit_backing(layer->handle, job->backing_name, job->backing_format, err))
        status = edit_fail_prefix(job->image, err);
    if (!status && !job->unsafe)
        status = keep_differences(&rebase, err);
    return status ? status : edit_commit(job->image, err);
}
