/* --salvage: reading what can be read of an item. */
#include <stdio.h>
#include <string.h>

#include "convert_worker.h"

#define SALVAGE_STEP (64u << 10)
#define SALVAGE_SECTOR 512u

/* What was lost last: told as one range, however many sectors it has. */
struct lost {
    uint64_t offset, length; /* length 0: nothing */
    char reason[IMGTK_MESSAGE_SIZE]; /* of its first sector */
};

static void tell_lost(const struct worker *worker, const struct lost *lost)
{
    const struct imgtk_convert *job = worker->conversion->job;
    if (lost->length > 0)
        job->salvaged(job->salvage_context, lost->offset, lost->length, lost->reason);
}

static void lose(const struct worker *worker, struct lost *lost, uint64_t offset, size_t length, const char *reason)
{
    if (lost->offset + lost->length != offset || lost->length == 0) {
        tell_lost(worker, lost);
        *lost = (struct lost){ .offset = offset };
        snprintf(lost->reason, sizeof(lost->reason), "%s", reason);
    }
    lost->length += length;
}

/* Divides what cannot be read down to sectors, so that only they are lost. */
static void salvage(struct worker *worker, uint8_t *buf, size_t length, uint64_t offset, struct lost *lost)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (source_walk_read(worker->walk, buf, length, offset, &err) == 0)
        return;
    if (length > SALVAGE_SECTOR) {
        size_t step = length > SALVAGE_STEP ? SALVAGE_STEP : SALVAGE_SECTOR;
        for (size_t at = 0; at < length; at += step)
            salvage(worker, buf + at, length - at < step ? length - at : step, offset + at, lost);
        return;
    }
    memset(buf, 0, length);
    lose(worker, lost, offset, length, err.message);
}

void worker_salvage(struct worker *worker, const struct item *item)
{
    struct lost lost = { .length = 0 };
    salvage(worker, worker->slot->buffer, (size_t)item->length, item->offset, &lost);
    tell_lost(worker, &lost);
}
