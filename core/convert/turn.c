#include "turn.h"

#include <string.h>

void turnstile_init(struct turnstile *stile)
{
    memset(stile, 0, sizeof(*stile));
    pthread_mutex_init(&stile->lock, NULL);
    pthread_cond_init(&stile->moved, NULL);
}

void turnstile_destroy(struct turnstile *stile)
{
    pthread_cond_destroy(&stile->moved);
    pthread_mutex_destroy(&stile->lock);
}

void turnstile_fail(struct turnstile *stile)
{
    pthread_mutex_lock(&stile->lock);
    stile->failed = true;
    pthread_cond_broadcast(&stile->moved);
    pthread_mutex_unlock(&stile->lock);
}

int imgtk_turn_begin(struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct turnstile *stile = turn->stile;
    pthread_mutex_lock(&stile->lock);
    while (stile->next != turn->item && !stile->failed)
        pthread_cond_wait(&stile->moved, &stile->lock);
    bool failed = stile->failed;
    pthread_mutex_unlock(&stile->lock);
    return failed ? imgtk_fail(err, IMGTK_ECANCELLED, "another worker failed") : 0;
}

void turn_settle(struct imgtk_turn *turn)
{
    struct turnstile *stile = turn->stile;
    if (turn->ended)
        return;
    turn->ended = true;
    pthread_mutex_lock(&stile->lock);
    while (turn->item - stile->next >= TURN_WINDOW && !stile->failed)
        pthread_cond_wait(&stile->moved, &stile->lock);
    if (!stile->failed) {
        stile->ended[turn->item % TURN_WINDOW] = true;
        if (turn->item == stile->next) {
            while (stile->ended[stile->next % TURN_WINDOW])
                stile->ended[stile->next++ % TURN_WINDOW] = false;
            pthread_cond_broadcast(&stile->moved);
        }
    }
    pthread_mutex_unlock(&stile->lock);
}

void imgtk_turn_end(struct imgtk_turn *turn)
{
    if (turn->last)
        turn_settle(turn);
}
