/* A conversion under way: plan, workers, writer. Internal to core; see jobs.h for the job. */
#ifndef IMGTK_CORE_CONVERT_CONVERT_H
#define IMGTK_CORE_CONVERT_CONVERT_H

#include <pthread.h>

#include "chain/source.h"
#include "convert_digest.h"
#include "imgtk/jobs.h"
#include "jobs/plan.h"
#include "rate.h"
#include "slots.h"
#include "target.h"
#include "turn.h"

/* How data that lie plainly in a host file reach a target that has a place for them. */
enum copy_mode {
    COPY_BY_HAND, /* read, search for zeroes, write */
    COPY_SHARE    /* share blocks where the file system can, or let a file server copy */
};

struct conversion {
    struct imgtk_context *context;
    const struct imgtk_convert *job;
    struct source source;
    struct imgtk_plan plan;
    struct target target;
    struct imgtk_image *base; /* what only differences are written from: the target's backing file, or relative_to */
    struct turnstile stile;
    struct rate rate;
    unsigned workers;
    uint32_t item_size; /* bytes that a worker handles at once; a multiple of the target's unit */
    uint32_t cut;       /* bytes that items begin and end at multiples of: the unit, or whole blocks of the digest */
    uint32_t granule;   /* zero detection works in steps of this many bytes; a multiple of the unit */
    uint32_t copy_unit; /* where the kernel is to copy, places in source and target are alike modulo this */
    bool find_zeroes;
    bool in_order;      /* a source is read as it comes */
    struct conversion_digest digest;

    struct slots slots;
    struct views views;
    pthread_mutex_t lock; /* guards what follows; plan.lock may be taken under it */
    enum copy_mode copy;
    uint64_t position;    /* the plan is cut up to here */
    uint64_t next_number;
    struct imgtk_progress progress;
    struct imgtk_error error; /* of the worker that failed first */
};

/* The next piece of work; *found false when the plan is used up. Thread-safe. */
int convert_next_item(struct conversion *conversion, struct item *out, bool *found, struct imgtk_error *err);

/* What one thread does until the plan is used up, something fails or the job is cancelled. */
void convert_work(struct conversion *conversion);

/* Counts bytes as done and tells the listener. Not 0: stop. */
int convert_advance(struct conversion *conversion, uint64_t done, uint64_t copied, struct imgtk_error *err);

#endif
