/*
 * The order of work items: who may decide next where data go. Internal to core.
 *
 * Items are numbered from 0. Each item's turn ends exactly once, in any order; a turn begins when all earlier ones
 * have ended.
 */
#ifndef IMGTK_CORE_CONVERT_TURN_H
#define IMGTK_CORE_CONVERT_TURN_H

#include <pthread.h>

#include "imgtk/driver.h"

#define TURN_WINDOW 1024u /* how far an item may end ahead of the oldest that has not */

struct turnstile {
    pthread_mutex_t lock; /* a leaf: nothing else is locked under it */
    pthread_cond_t moved;
    uint64_t next; /* the first item whose turn has not ended */
    bool failed;
    bool ended[TURN_WINDOW]; /* of item next + i, at index (next + i) % TURN_WINDOW */
};

void turnstile_init(struct turnstile *stile);
void turnstile_destroy(struct turnstile *stile);
/* A worker failed: everybody who waits gives up. */
void turnstile_fail(struct turnstile *stile);

struct imgtk_turn {
    struct turnstile *stile;
    uint64_t item;
    bool last;  /* the item has no further write: ending this one lets the next item go on */
    bool ended;
};

/* Ends the item's turn if no driver did. Blocks only when the item is TURN_WINDOW ahead. */
void turn_settle(struct imgtk_turn *turn);

#endif
