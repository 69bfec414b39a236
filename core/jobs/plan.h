/*
 * The plan of a conversion: what has to be written, from the extents alone. Internal to core.
 *
 * Drivers see it through imgtk_plan_next(); the converter cuts it into work items.
 */
#ifndef IMGTK_CORE_JOBS_PLAN_H
#define IMGTK_CORE_JOBS_PLAN_H

#include <pthread.h>

#include "chain/source.h"

enum plan_kind {
    PLAN_SKIP, /* nothing to write: a hole, or what the backing file of the target has too */
    PLAN_ZERO, /* zeroes that have to be said, since the backing file of the target has something else there */
    PLAN_DATA
};

struct plan_options {
    bool write_all;              /* -S 0: holes are written too */
    bool ignore_extents;         /* treat everything as data */
    struct imgtk_image *backing; /* of the target, or what the target is relative to; NULL: none */
    bool salvage;                /* what cannot be mapped is data, and reading will tell */
    bool zeroes_as_data;         /* PLAN_DATA instead of PLAN_ZERO: the target cannot say zeroes otherwise */
};

struct imgtk_plan {
    const struct source *source;
    struct plan_options options;
    struct source_walk *walk;
    struct imgtk_walk *backing_walk;
    size_t shared_depth;  /* the source's layers from here on are the target's backing chain; SIZE_MAX: none */
    size_t shared_below;  /* the backing chain's layers from here on are the source; SIZE_MAX: none */
    pthread_mutex_t lock; /* the walks' */
};

int plan_init(struct imgtk_plan *plan, const struct source *source, const struct plan_options *options,
              struct imgtk_error *err);
void plan_destroy(struct imgtk_plan *plan);

struct plan_stretch {
    uint64_t length;
    enum plan_kind kind;
    struct imgtk_chain_extent found; /* of the source; its length may be larger */
};

/* The stretch of one kind that begins at offset (< the source's size). Thread-safe. */
int plan_stretch(struct imgtk_plan *plan, uint64_t offset, struct plan_stretch *out, struct imgtk_error *err);

#endif
