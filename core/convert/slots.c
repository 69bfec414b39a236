#include "slots.h"

#include <stdlib.h>
#include <string.h>

#include "convert.h"

#define BUFFER_ALIGN 4096u
#define SLOTS_AHEAD 1u /* filled while every worker has one in hand; more of them only leave the caches */
#define PREPARED_AHEAD 2u /* for each worker, since some pieces take several times as long as others */

/* ---- What there is to do: the lock is held ------------------------------------- */

/* The filled slot of the lowest number: items wait for the turns of earlier ones. Ordered, a later one does so here. */
static struct slot *find_filled(const struct slots *slots)
{
    struct slot *found = NULL;
    for (unsigned i = 0; i < slots->count; i++) {
        struct slot *slot = &slots->list[i];
        if (slot->state == SLOT_FILLED && (!found || slot->item.number < found->item.number))
            found = slot;
    }
    if (found && slots->ordered && found->item.number != slots->next)
        return NULL;
    return found;
}

/* The first one: its buffer is the one that was in use last, more often than others. */
static struct slot *find_free(const struct slots *slots)
{
    for (unsigned i = 0; i < slots->count; i++)
        if (slots->list[i].state == SLOT_FREE)
            return &slots->list[i];
    return NULL;
}

static bool find_task(const struct slots *slots, enum slot_task *task, struct slot **out)
{
    *task = SLOT_WRITE;
    *out = slots->writing < slots->max_writing ? find_filled(slots) : NULL;
    if (*out)
        return true;
    *task = SLOT_FILL;
    *out = !slots->drained && slots->filling < slots->max_filling ? find_free(slots) : NULL;
    return *out != NULL;
}

static bool is_over(const struct slots *slots)
{
    if (slots->failed)
        return true;
    if (!slots->drained)
        return false;
    for (unsigned i = 0; i < slots->count; i++)
        if (slots->list[i].state != SLOT_FREE && slots->list[i].state != SLOT_WRITING)
            return false;
    return true;
}

/*
 * Whoever leaves or takes something looks whether there is more, and wakes one who does the same: after the lock is
 * released, for which that one would wait.
 */
static bool has_more(const struct slots *slots)
{
    enum slot_task task;
    struct slot *slot;
    return slots->waiting > 0 && (is_over(slots) || find_task(slots, &task, &slot));
}

/* ---- For the workers ------------------------------------------------------------- */

enum slot_task slots_take(struct slots *slots, struct slot **out)
{
    enum slot_task task = SLOT_LEAVE;
    *out = NULL;
    pthread_mutex_lock(&slots->lock);
    while (!is_over(slots) && !find_task(slots, &task, out)) {
        slots->waiting++;
        pthread_cond_wait(&slots->changed, &slots->lock);
        slots->waiting--;
    }
    if (!*out) {
        task = SLOT_LEAVE;
    } else if (task == SLOT_WRITE) {
        (*out)->state = SLOT_WRITING;
        slots->writing++;
        slots->next = (*out)->item.number + 1;
    } else {
        (*out)->state = SLOT_FILLING;
        slots->filling++;
    }
    bool wake = has_more(slots);
    pthread_mutex_unlock(&slots->lock);
    if (wake)
        pthread_cond_signal(&slots->changed);
    return task;
}

void slots_read(struct slots *slots, struct slot *slot)
{
    pthread_mutex_lock(&slots->lock);
    slot->state = SLOT_PREPARING;
    slots->filling--;
    bool wake = has_more(slots);
    pthread_mutex_unlock(&slots->lock);
    if (wake)
        pthread_cond_signal(&slots->changed);
}

void slots_filled(struct slots *slots, struct slot *slot)
{
    pthread_mutex_lock(&slots->lock);
    if (slot->state == SLOT_FILLING)
        slots->filling--;
    slot->state = SLOT_FILLED;
    pthread_mutex_unlock(&slots->lock);
}

void slots_drained(struct slots *slots, struct slot *slot)
{
    pthread_mutex_lock(&slots->lock);
    slot->state = SLOT_FREE;
    slots->filling--;
    slots->drained = true;
    pthread_mutex_unlock(&slots->lock);
}

void slots_written(struct slots *slots, struct slot *slot)
{
    pthread_mutex_lock(&slots->lock);
    slot->state = SLOT_FREE;
    slots->writing--;
    pthread_mutex_unlock(&slots->lock);
}

void slots_fail(struct slots *slots)
{
    pthread_mutex_lock(&slots->lock);
    slots->failed = true;
    pthread_cond_broadcast(&slots->changed);
    pthread_mutex_unlock(&slots->lock);
}

/* ---- Set-up ------------------------------------------------------------------------ */

static bool make_slot(struct slot *slot, const struct conversion *conversion)
{
    size_t size = conversion->item_size;
    slot->buffer = aligned_alloc(BUFFER_ALIGN, size);
    slot->data = slot->buffer;
    slot->below = conversion->base ? aligned_alloc(BUFFER_ALIGN, size) : NULL;
    slot->runs = calloc(size / conversion->granule + 1, sizeof(*slot->runs));
    return slot->buffer && slot->runs && (slot->below || !conversion->base);
}

int slots_init(struct slots *slots, const struct conversion *conversion, struct imgtk_error *err)
{
    unsigned ahead = conversion->target.prepares ? PREPARED_AHEAD * conversion->workers : SLOTS_AHEAD;
    unsigned count = conversion->workers + (conversion->workers > 1 ? ahead : 0);
    memset(slots, 0, sizeof(*slots));
    slots->target = &conversion->target;
    pthread_mutex_init(&slots->lock, NULL);
    pthread_cond_init(&slots->changed, NULL);
    slots->max_filling = conversion->in_order ? 1 : conversion->workers;
    slots->ordered = conversion->target.one_writer || conversion->target.prepares;
    slots->max_writing = conversion->target.writers;
    slots->next = conversion->next_number;
    slots->list = calloc(count, sizeof(*slots->list));
    bool made = slots->list != NULL;
    for (; made && slots->count < count; slots->count++)
        made = make_slot(&slots->list[slots->count], conversion);
    return made ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

static void discard_prepared(const struct target *target, struct slot *slot)
{
    for (size_t i = 0; i < slot->run_count; i++)
        if (slot->runs[i].prepared)
            target->driver->discard(target->writer, slot->runs[i].prepared);
}

void slots_destroy(struct slots *slots)
{
    for (unsigned i = 0; i < slots->count; i++) {
        discard_prepared(slots->target, &slots->list[i]);
        free(slots->list[i].buffer);
        free(slots->list[i].below);
        free(slots->list[i].runs);
    }
    free(slots->list);
    pthread_cond_destroy(&slots->changed);
    pthread_mutex_destroy(&slots->lock);
}
