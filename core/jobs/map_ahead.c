#include "map_ahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "chain/image_internal.h"
#include "imgtk/bytes.h"

/*
 * A part is as long as its extents fill a list, neither hardly any of it nor more than all: full or empty tables give
 * few extents for many GiB, badly fragmented ones thousands for some MiB.
 */
enum { EXTENTS = 1024, FEW = EXTENTS / 4, PARTS_AT_FIRST = 64, PARTS_AT_LEAST = 32, MAX_WORKERS = 16 };
#define SPAN_MIN (UINT64_C(1) << 20)
#define WORTH_IT (UINT64_C(1) << 30) /* less is walked before threads have begun */

struct slot {
    struct map_part part;
    bool walked;
};

struct worker {
    struct map_ahead *ahead;
    struct imgtk_walk *walk;
    pthread_t thread;
};

struct map_ahead {
    struct worker workers[MAX_WORKERS];
    unsigned started;
    atomic_bool over;               /* nobody wants the rest */
    pthread_mutex_t lock;           /* a leaf, of what follows */
    pthread_cond_t room, walked;
    struct slot slots[2 * MAX_WORKERS]; /* part n is in slot n % slot_count */
    unsigned slot_count;
    uint64_t taken, begun;          /* parts */
    uint64_t position, end;         /* of the disk: what no part has yet */
    uint64_t span, span_max;        /* of the next part */
    bool holds;                     /* the caller has part `taken` in hand */
};

/* ---- Walking ------------------------------------------------------------------------------ */

static void add_extent(struct map_part *part, const struct imgtk_chain_extent *found)
{
    struct imgtk_chain_extent *last = part->count ? &part->extents[part->count - 1] : NULL;
    if (last && walk_continues(last, found))
        last->extent.length += found->extent.length;
    else
        part->extents[part->count++] = *found;
    part->reached += found->extent.length;
}

static void walk_part(struct worker *worker, struct map_part *part)
{
    struct imgtk_chain_extent found;
    while (part->reached < part->end && part->count < EXTENTS && !atomic_load(&worker->ahead->over) &&
           imgtk_walk_next(worker->walk, part->reached, part->end - part->reached, &found, NULL) == 0)
        add_extent(part, &found);
}

/* The lock is held, as it is below. */
static struct slot *begin_part(struct map_ahead *ahead)
{
    struct slot *slot = &ahead->slots[ahead->begun++ % ahead->slot_count];
    uint64_t length = imgtk_min_u64(ahead->span, ahead->end - ahead->position);
    slot->walked = false;
    slot->part.start = slot->part.reached = ahead->position;
    slot->part.end = ahead->position += length;
    slot->part.count = 0;
    return slot;
}

static void end_part(struct map_ahead *ahead, struct slot *slot)
{
    slot->walked = true;
    if (slot->part.count == EXTENTS && ahead->span > SPAN_MIN)
        ahead->span /= 2;
    else if (slot->part.count < FEW && ahead->span < ahead->span_max)
        ahead->span *= 2;
    pthread_cond_signal(&ahead->walked);
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct map_ahead *ahead = worker->ahead;
    pthread_mutex_lock(&ahead->lock);
    for (;;) {
        while (!ahead->over && ahead->position < ahead->end && ahead->begun - ahead->taken == ahead->slot_count)
            pthread_cond_wait(&ahead->room, &ahead->lock);
        if (ahead->over || ahead->position == ahead->end)
            break;
        struct slot *slot = begin_part(ahead);
        pthread_mutex_unlock(&ahead->lock);
        walk_part(worker, &slot->part);
        pthread_mutex_lock(&ahead->lock);
        end_part(ahead, slot);
    }
    pthread_mutex_unlock(&ahead->lock);
    return NULL;
}

/* ---- Taking ------------------------------------------------------------------------------- */

const struct map_part *map_ahead_next(struct map_ahead *ahead)
{
    pthread_mutex_lock(&ahead->lock);
    if (ahead->holds) {
        ahead->taken++;
        pthread_cond_signal(&ahead->room);
    }
    ahead->holds = ahead->taken < ahead->begun || ahead->position < ahead->end;
    struct slot *slot = &ahead->slots[ahead->taken % ahead->slot_count];
    while (ahead->holds && (ahead->taken == ahead->begun || !slot->walked))
        pthread_cond_wait(&ahead->walked, &ahead->lock);
    pthread_mutex_unlock(&ahead->lock);
    return ahead->holds ? &slot->part : NULL;
}

/* ---- Life --------------------------------------------------------------------------------- */

static bool make_slots(struct map_ahead *ahead, unsigned count)
{
    for (; ahead->slot_count < count; ahead->slot_count++) {
        struct map_part *part = &ahead->slots[ahead->slot_count].part;
        part->extents = malloc(EXTENTS * sizeof(*part->extents));
        if (!part->extents)
            return false;
    }
    return true;
}

static void start_workers(struct map_ahead *ahead, struct imgtk_image *image, unsigned count)
{
    for (; ahead->started < count; ahead->started++) {
        struct worker *worker = &ahead->workers[ahead->started];
        worker->ahead = ahead;
        if (imgtk_walk_new(image, &worker->walk, NULL))
            return;
        if (pthread_create(&worker->thread, NULL, work, worker)) {
            imgtk_walk_free(worker->walk);
            return;
        }
    }
}

struct map_ahead *map_ahead_new(struct imgtk_image *image, uint64_t start, uint64_t end)
{
    unsigned count = image_workers(image) < MAX_WORKERS ? image_workers(image) : MAX_WORKERS;
    struct map_ahead *ahead = count > 1 && end - start >= WORTH_IT ? calloc(1, sizeof(*ahead)) : NULL;
    if (!ahead)
        return NULL;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->room, NULL);
    pthread_cond_init(&ahead->walked, NULL);
    ahead->position = start;
    ahead->end = end;
    ahead->span = imgtk_round_up((end - start) / PARTS_AT_FIRST, SPAN_MIN);
    ahead->span_max = (end - start) / PARTS_AT_LEAST;
    if (make_slots(ahead, 2 * count))
        start_workers(ahead, image, count);
    if (ahead->started > 0)
        return ahead;
    map_ahead_free(ahead);
    return NULL;
}

void map_ahead_free(struct map_ahead *ahead)
{
    if (!ahead)
        return;
    pthread_mutex_lock(&ahead->lock);
    atomic_store(&ahead->over, true);
    pthread_cond_broadcast(&ahead->room);
    pthread_mutex_unlock(&ahead->lock);
    while (ahead->started > 0) {
        struct worker *worker = &ahead->workers[--ahead->started];
        pthread_join(worker->thread, NULL);
        imgtk_walk_free(worker->walk);
    }
    while (ahead->slot_count > 0)
        free(ahead->slots[--ahead->slot_count].part.extents);
    pthread_cond_destroy(&ahead->walked);
    pthread_cond_destroy(&ahead->room);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}
