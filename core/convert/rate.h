/* A bound on bytes per second that all workers of a job share. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_RATE_H
#define IMGTK_CORE_CONVERT_RATE_H

#include <pthread.h>
#include <stdint.h>

#include "imgtk/cancel.h"

struct rate {
    uint64_t limit; /* bytes per second; 0: none */
    pthread_mutex_t lock; /* of what follows; a leaf */
    double free_at; /* seconds of the monotonic clock: when what was let through so far has had its time */
};

void rate_init(struct rate *rate, uint64_t limit);
void rate_destroy(struct rate *rate);
/* Blocks until `bytes` more may be moved. IMGTK_ECANCELLED soon after `cancel` (may be NULL) asks for it. */
int rate_wait(struct rate *rate, uint64_t bytes, const struct imgtk_cancel *cancel, struct imgtk_error *err);

#endif
