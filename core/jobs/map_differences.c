#include "map_differences.h"

#include <stdlib.h>
#include <string.h>

#include "chain/image_internal.h"
#include "imgtk/bytes.h"
#include "map_rows.h"
#include "plan.h"

#define STEP 4096u          /* what is told apart where content decides */
#define PIECE (256u << 10)  /* what is read at once; a multiple of STEP */

struct differences {
    const struct imgtk_map *job;
    struct imgtk_plan plan;
    bool related;                    /* one image is an ancestor of the other: extents tell everything */
    struct map_rows rows;
    uint8_t *ours, *theirs;          /* PIECE bytes each */
};

static int add_row(struct differences *state, const struct plan_stretch *stretch, uint64_t offset, uint64_t length,
                   struct imgtk_error *err)
{
    struct imgtk_chain_extent next = stretch->found;
    extent_advance(&next.extent, offset - next.start);
    next.start = offset;
    next.extent.length = length;
    return map_rows_add(&state->rows, &next, err);
}

/* Past its end the other image reads as zeroes. */
static int read_theirs(struct differences *state, uint64_t offset, size_t length, struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(state->job->relative_to);
    size_t present = offset < size ? (size_t)imgtk_min_u64(length, size - offset) : 0;
    memset(state->theirs + present, 0, length - present);
    return imgtk_walk_read(state->plan.backing_walk, state->theirs, present, offset, err);
}

static int compare_piece(struct differences *state, const struct plan_stretch *stretch, uint64_t offset, size_t length,
                         struct imgtk_error *err)
{
    int status = source_walk_read(state->plan.walk, state->ours, length, offset, err);
    if (!status)
        status = read_theirs(state, offset, length, err);
    for (size_t at = 0; !status && at < length; at += STEP) {
        size_t step = length - at < STEP ? length - at : STEP;
        if (memcmp(state->ours + at, state->theirs + at, step) != 0)
            status = add_row(state, stretch, offset + at, step, err);
    }
    return status;
}

static int tell_stretch(struct differences *state, const struct plan_stretch *stretch, uint64_t offset, uint64_t length,
                        struct imgtk_error *err)
{
    if (stretch->kind == PLAN_SKIP)
        return 0;
    if (state->related)
        return add_row(state, stretch, offset, length, err);
    int status = 0;
    for (uint64_t at = 0; !status && at < length; at += PIECE)
        status = compare_piece(state, stretch, offset + at, (size_t)imgtk_min_u64(length - at, PIECE), err);
    return status;
}

static int tell_all(struct differences *state, struct imgtk_error *err)
{
    const struct imgtk_map *job = state->job;
    uint64_t end = job->start + imgtk_min_u64(job->length, imgtk_image_size(job->image) - job->start);
    int status = 0;
    for (uint64_t offset = job->start; !status && offset < end;) {
        struct plan_stretch stretch;
        status = plan_stretch(&state->plan, offset, &stretch, err);
        if (status)
            break;
        uint64_t length = imgtk_min_u64(stretch.length, end - offset);
        status = tell_stretch(state, &stretch, offset, length, err);
        offset += length;
    }
    return status ? status : map_rows_end(&state->rows, err);
}

int map_differences(const struct imgtk_map *job, struct imgtk_error *err)
{
    struct differences state = { .job = job, .rows.job = job };
    struct imgtk_image *const images[] = { job->image };
    struct source source;
    struct plan_options options = { .backing = job->relative_to, .zeroes_as_data = true };
    int status = source_init(&source, images, 1, err);
    if (!status)
        status = plan_init(&state.plan, &source, &options, err);
    if (status)
        return status;
    state.related = state.plan.shared_depth != SIZE_MAX || state.plan.shared_below != SIZE_MAX;
    state.ours = malloc(PIECE);
    state.theirs = malloc(PIECE);
    if (!state.ours || !state.theirs)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (!status)
        status = tell_all(&state, err);
    free(state.ours);
    free(state.theirs);
    plan_destroy(&state.plan);
    return status;
}
