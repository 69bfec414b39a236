/*
 * The buffers of a conversion, and who does what next. Internal to core.
 *
 * A worker is not bound to one piece of the disk: it fills a slot, or writes one that it or another has filled. So where
 * writers of a file only wait for each other, two of them write what all of them read: while one writes the other stands
 * ready, and nobody has to be woken between two writes, which takes longer than many a write. Where CPUs are fewer than
 * workers, one writes.
 *
 * Where the driver prepares its writes (it compresses), a slot is filled when that is done. Whoever has prepared a piece
 * sooner than an earlier one is ready goes on with a later one, and need not wait for its turn.
 */
#ifndef IMGTK_CORE_CONVERT_SLOTS_H
#define IMGTK_CORE_CONVERT_SLOTS_H

#include <pthread.h>

#include "item.h"
#include "resume.h"
#include "storage/view.h"

enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_PREPARING, SLOT_FILLED, SLOT_WRITING };

struct slot {
    enum slot_state state; /* guarded by the lock; what follows belongs to whoever fills or writes the slot */
    struct item item;
    uint8_t *buffer; /* item_size bytes */
    const uint8_t *data; /* what the item has: in the buffer, or in the view */
    struct view view;
    uint8_t *below;  /* what the backing file has there; NULL: the target has none */
    struct run *runs; /* what to write of the data: item_size / granule of them, at least one */
    size_t run_count;
};

struct slots {
    const struct target *target;
    pthread_mutex_t lock; /* of what follows; a leaf */
    pthread_cond_t changed;
    struct slot *list;
    unsigned count;
    unsigned filling, writing, waiting;  /* how many workers */
    unsigned max_filling, max_writing;
    bool ordered;                        /* writing begins in the order of the items */
    uint64_t next;                       /* the item that is next in that order */
    bool drained;                        /* there are no more items */
    bool failed;
};

enum slot_task { SLOT_FILL, SLOT_WRITE, SLOT_LEAVE };

int slots_init(struct slots *slots, const struct conversion *conversion, struct imgtk_error *err);
void slots_destroy(struct slots *slots);
/* What the worker is to do with *out; blocks while there is nothing. LEAVE: nothing will be left to do. */
enum slot_task slots_take(struct slots *slots, struct slot **out);
/* The slot that is being filled has all its data, which are yet to be prepared. */
void slots_read(struct slots *slots, struct slot *slot);
/* The slot that was to be filled holds an item (its number counts from then on), or nothing: there are no more. */
void slots_filled(struct slots *slots, struct slot *slot);
void slots_drained(struct slots *slots, struct slot *slot);
void slots_written(struct slots *slots, struct slot *slot);
/* A worker failed: all leave. */
void slots_fail(struct slots *slots);

#endif
