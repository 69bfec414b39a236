#include "rate.h"

#include <time.h>

#define STEP 0.05 /* seconds: how soon a cancellation is noticed */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void rate_init(struct rate *rate, uint64_t limit)
{
    rate->limit = limit;
    rate->free_at = 0;
    pthread_mutex_init(&rate->lock, NULL);
}

void rate_destroy(struct rate *rate)
{
    pthread_mutex_destroy(&rate->lock);
}

/* When the bytes may go: behind everything that was let through before. */
static double reserve(struct rate *rate, uint64_t bytes)
{
    pthread_mutex_lock(&rate->lock);
    double time = now(), start = rate->free_at > time ? rate->free_at : time;
    rate->free_at = start + (double)bytes / (double)rate->limit;
    pthread_mutex_unlock(&rate->lock);
    return start;
}

int rate_wait(struct rate *rate, uint64_t bytes, const struct imgtk_cancel *cancel, struct imgtk_error *err)
{
    if (rate->limit == 0)
        return 0;
    double start = reserve(rate, bytes);
    for (double left; (left = start - now()) > 0;) {
        if (imgtk_cancel_reason(cancel))
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
        struct timespec pause = { .tv_nsec = (long)((left < STEP ? left : STEP) * 1e9) };
        nanosleep(&pause, NULL);
    }
    return 0;
}
