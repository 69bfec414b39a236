#include "plan.h"

#include <string.h>
#include <sys/stat.h>

#include "chain/image_internal.h"
#include "imgtk/bytes.h"
#include "storage/storage.h"

#define SALVAGE_STRETCH (64u << 10) /* what is taken for lost at once where a map is damaged */

/* The same state of the same file. */
static bool same_layer(const struct layer *a, const struct layer *b)
{
    struct stat first, second;
    struct imgtk_storage *file_a = a->public.file, *file_b = b->public.file;
    int fd_a = file_a->ops.fd(file_a->handle), fd_b = file_b->ops.fd(file_b->handle);
    return a->public.driver == b->public.driver && !a->is_snapshot && !b->is_snapshot && fd_a >= 0 && fd_b >= 0 &&
           fstat(fd_a, &first) == 0 && fstat(fd_b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* The depth from which the chain of `image` is that of `ancestor`: nothing needs to be compared there. */
static size_t find_shared_depth(const struct imgtk_image *image, const struct imgtk_image *ancestor)
{
    for (size_t depth = 0; depth < image->count; depth++)
        if (same_layer(&image->layers[depth], &ancestor->layers[0]))
            return depth;
    return SIZE_MAX;
}

int plan_init(struct imgtk_plan *plan, const struct source *source, const struct plan_options *options,
              struct imgtk_error *err)
{
    memset(plan, 0, sizeof(*plan));
    plan->source = source;
    plan->options = *options;
    plan->shared_depth = plan->shared_below = SIZE_MAX;
    if (options->backing && source->count == 1) {
        plan->shared_depth = find_shared_depth(source->images[0], options->backing);
        plan->shared_below = find_shared_depth(options->backing, source->images[0]);
    }
    pthread_mutex_init(&plan->lock, NULL);
    int status = source_walk_new(source, true, &plan->walk, err);
    if (!status && options->backing)
        status = imgtk_walk_new(options->backing, &plan->backing_walk, err);
    if (status)
        plan_destroy(plan);
    return status;
}

void plan_destroy(struct imgtk_plan *plan)
{
    source_walk_free(plan->walk);
    imgtk_walk_free(plan->backing_walk);
    pthread_mutex_destroy(&plan->lock);
    memset(plan, 0, sizeof(*plan)); /* whoever asks `source` whether there is a plan may do so after a failure */
}

/* What the backing file has at the stretch, which is cut to that; *found false: it ends before. */
static int look_below(struct imgtk_plan *plan, uint64_t offset, struct plan_stretch *out,
                      struct imgtk_chain_extent *below, bool *found, struct imgtk_error *err)
{
    uint64_t backing_size = imgtk_image_size(plan->options.backing);
    *found = offset < backing_size;
    if (!*found)
        return 0;
    int status = imgtk_walk_next(plan->backing_walk, offset, imgtk_min_u64(out->length, backing_size - offset), below,
                                 err);
    if (!status)
        out->length = below->extent.length;
    return status;
}

/* Zeroes over a backing file: nothing to say where that reads as zeroes too. */
static int zeroes_over_backing(struct imgtk_plan *plan, uint64_t offset, struct plan_stretch *out,
                               struct imgtk_error *err)
{
    struct imgtk_chain_extent below;
    bool found;
    out->kind = PLAN_SKIP;
    int status = look_below(plan, offset, out, &below, &found, err);
    if (!status && found && below.extent.kind != IMGTK_EXTENT_ZERO)
        out->kind = plan->options.zeroes_as_data ? PLAN_DATA : PLAN_ZERO;
    return status;
}

/* Where the source lies in the backing chain itself, all that the layers above it leave alone is the same. */
static int skip_what_is_below(struct imgtk_plan *plan, uint64_t offset, struct plan_stretch *out,
                              struct imgtk_error *err)
{
    struct imgtk_chain_extent below;
    bool found;
    if (plan->shared_below == SIZE_MAX)
        return 0;
    int status = look_below(plan, offset, out, &below, &found, err);
    if (!status && found && below.depth >= plan->shared_below)
        out->kind = PLAN_SKIP;
    return status;
}

int plan_stretch(struct imgtk_plan *plan, uint64_t offset, struct plan_stretch *out, struct imgtk_error *err)
{
    uint64_t left = plan->source->size - offset;
    if (plan->options.ignore_extents) {
        *out = (struct plan_stretch){ .length = left, .kind = PLAN_DATA };
        return 0;
    }
    struct imgtk_chain_extent found;
    size_t image;
    pthread_mutex_lock(&plan->lock);
    int status = source_walk_next(plan->walk, offset, left, &found, &image, err);
    if (status && plan->options.salvage) {
        *out = (struct plan_stretch){ .length = imgtk_min_u64(left, SALVAGE_STRETCH - offset % SALVAGE_STRETCH),
                                      .kind = PLAN_DATA };
        status = 0;
    } else if (!status) {
        *out = (struct plan_stretch){ .length = found.extent.length, .kind = PLAN_DATA, .found = found };
        if (found.depth >= plan->shared_depth)
            out->kind = PLAN_SKIP;
        else if (found.extent.kind == IMGTK_EXTENT_ZERO && plan->options.backing)
            status = zeroes_over_backing(plan, offset, out, err);
        else if (found.extent.kind == IMGTK_EXTENT_ZERO && !plan->options.write_all)
            out->kind = PLAN_SKIP;
        if (!status && out->kind != PLAN_SKIP)
            status = skip_what_is_below(plan, offset, out, err);
    }
    pthread_mutex_unlock(&plan->lock);
    return status;
}

/* The stretch at offset for who fills whole units: what is skipped for several reasons may make up a unit together. */
static int unit_stretch(struct imgtk_plan *plan, uint64_t unit, uint64_t offset, struct plan_stretch *out,
                        struct imgtk_error *err)
{
    int status = plan_stretch(plan, offset, out, err);
    while (!status && out->kind == PLAN_SKIP && out->length < unit && offset + out->length < plan->source->size) {
        struct plan_stretch next;
        status = plan_stretch(plan, offset + out->length, &next, err);
        if (status || next.kind != PLAN_SKIP)
            break;
        out->length += next.length;
    }
    return status;
}

/* The end of the planned run at offset, in whole units; holes smaller than a unit do not end it. */
static int run_end(struct imgtk_plan *plan, uint64_t unit, uint64_t offset, uint64_t *end, struct imgtk_error *err)
{
    uint64_t size = plan->source->size;
    while (offset < size) {
        struct plan_stretch stretch;
        int status = unit_stretch(plan, unit, offset, &stretch, err);
        if (status)
            return status;
        if (stretch.kind == PLAN_SKIP && (stretch.length >= unit || offset + stretch.length == size))
            break;
        offset = imgtk_min_u64(size, imgtk_round_up(offset + stretch.length, unit));
    }
    *end = offset;
    return 0;
}

int imgtk_plan_next(struct imgtk_plan *plan, uint64_t unit, uint64_t offset, uint64_t *start, uint64_t *length,
                    struct imgtk_error *err)
{
    uint64_t size = plan->source->size;
    *length = 0;
    *start = offset;
    if (offset >= size)
        return 0; /* rounded down, a size that is no multiple of the unit would give its last run again, for ever */
    *start = offset = imgtk_round_down(offset, unit);
    while (offset < size) {
        struct plan_stretch stretch;
        int status = unit_stretch(plan, unit, offset, &stretch, err);
        if (status)
            return status;
        uint64_t whole = offset + stretch.length == size ? stretch.length : imgtk_round_down(stretch.length, unit);
        if (stretch.kind == PLAN_SKIP && whole > 0) {
            offset += whole;
            continue;
        }
        uint64_t end = 0;
        status = run_end(plan, unit, offset, &end, err);
        *start = offset;
        *length = end - offset;
        return status;
    }
    return 0;
}
