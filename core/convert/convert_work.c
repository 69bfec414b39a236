/* One worker: fills slots (reads items, searches for zeroes) and writes what is in them. */
#include <errno.h>
#include <string.h>

#include "convert_worker.h"
#include "imgtk/bytes.h"

#define VIEW_MIN (64u << 10) /* what is shorter is read as fast */

/* ---- Looking at data instead of reading them --------------------------------- */

bool worker_look(struct worker *worker, const struct item *item)
{
    struct conversion *conversion = worker->conversion;
    struct slot *slot = worker->slot;
    if (!item->from || item->length < VIEW_MIN ||
        !views_take(&conversion->views, item->from, item->from_offset, (size_t)item->length, &slot->view))
        return false;
    slot->data = slot->view.bytes;
    if (conversion->workers > 1)
        view_warm(&slot->view);
    return true;
}

/* That a file lost what was being written counts more than how the writing ended, which it may have made fail. */
int worker_look_away(struct worker *worker, int status, struct imgtk_error *err)
{
    struct slot *slot = worker->slot;
    struct imgtk_error lost = IMGTK_ERROR_INIT;
    slot->data = slot->buffer;
    if (!views_give_back(&worker->conversion->views, &slot->view, status && err->os_errno == EFAULT, &lost))
        return status;
    *err = lost;
    return lost.status;
}

/* ---- Reading ------------------------------------------------------------ */

static int read_item(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    if (worker->conversion->job->salvaged) {
        worker_salvage(worker, item);
        return 0;
    }
    if (worker->slot->view.bytes)
        return 0;
    return source_walk_read(worker->walk, worker->slot->buffer, item->length, item->offset, err);
}

/* Past its end a backing file reads as zeroes. */
static int read_backing(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    if (!worker->backing_walk)
        return 0;
    uint64_t size = imgtk_image_size(worker->conversion->base);
    size_t present = item->offset < size ? (size_t)imgtk_min_u64(item->length, size - item->offset) : 0;
    memset(worker->slot->below + present, 0, item->length - present);
    return imgtk_walk_read(worker->backing_walk, worker->slot->below, present, item->offset, err);
}

/* ---- What to write of it ------------------------------------------------ */

static enum run_kind judge(const struct worker *worker, size_t start, size_t length)
{
    const struct conversion *conversion = worker->conversion;
    const uint8_t *bytes = worker->slot->data + start, *below = worker->slot->below;
    if (below && memcmp(bytes, below + start, length) == 0)
        return RUN_DROP;
    if (!conversion->find_zeroes || !imgtk_is_zero(bytes, length))
        return RUN_DATA;
    return below || !conversion->target.reads_zero ? RUN_ZERO : RUN_DROP;
}

/*
 * Whether a run of data continues over zeroes to the next data, for the driver
 * to drop: of two writes, the second one would be compressed while it holds
 * the turn that the first one took.
 */
static bool joins(const struct worker *worker, const struct run *run, enum run_kind kind)
{
    return worker->conversion->target.drops_zeroes && !worker->slot->below && run->kind == RUN_DATA && kind == RUN_DATA;
}

void worker_find_runs(struct worker *worker, size_t length)
{
    size_t count = 0, granule = worker->conversion->granule;
    struct run *runs = worker->slot->runs;
    for (size_t at = 0; at < length; at += granule) {
        size_t piece = length - at < granule ? length - at : granule;
        enum run_kind kind = judge(worker, at, piece);
        if (kind == RUN_DROP)
            continue;
        struct run *run = count > 0 ? &runs[count - 1] : NULL;
        if (run && run->kind == kind && (run->start + run->length == at || joins(worker, run, kind)))
            run->length = at + piece - run->start;
        else
            runs[count++] = (struct run){ .kind = kind, .start = at, .length = piece };
    }
    worker->slot->run_count = count;
}

int worker_name_target(const struct worker *worker, int status, struct imgtk_error *err)
{
    return status ? imgtk_fail_prefix(err, "%s", worker->conversion->job->target.name) : 0;
}

static struct imgtk_write as_write(const struct worker *worker, const struct item *item, const struct run *run)
{
    return (struct imgtk_write){
        .buf = worker->slot->data + run->start, .length = run->length, .offset = item->offset + run->start };
}

static int write_run(struct worker *worker, const struct item *item, struct run *run, struct imgtk_turn *turn,
                     struct imgtk_error *err)
{
    struct target *target = &worker->conversion->target;
    if (run->kind == RUN_ZERO)
        return target->driver->zero(target->writer, item->offset + run->start, run->length, turn, err);
    struct imgtk_write write = as_write(worker, item, run);
    write.turn = turn;
    void *prepared = run->prepared;
    run->prepared = NULL;
    return prepared ? target->driver->write_prepared(target->writer, &write, prepared, err)
                    : target->driver->write(target->writer, &write, err);
}

/* What needs no turn of the writes of a slot that has been read. */
static int prepare_runs(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    const struct target *target = &worker->conversion->target;
    struct slot *slot = worker->slot;
    int status = 0;
    for (size_t i = 0; !status && i < slot->run_count; i++) {
        struct imgtk_write write = as_write(worker, item, &slot->runs[i]);
        if (slot->runs[i].kind == RUN_DATA)
            status = target->driver->prepare(target->writer, &write, &slot->runs[i].prepared, err);
    }
    return worker_name_target(worker, status, err);
}

int worker_read(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    int status = read_item(worker, item, err);
    if (status)
        return status;
    return convert_digest_data(worker->conversion, worker->hasher, worker->slot->data, item->offset, item->length, err);
}

int worker_fill(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    int status = worker_read(worker, item, err);
    if (!status)
        status = read_backing(worker, item, err);
    if (!status)
        worker_find_runs(worker, item->length);
    return status;
}

int worker_write(struct worker *worker, const struct item *item, bool final, struct imgtk_turn *turn,
                 struct imgtk_error *err)
{
    struct slot *slot = worker->slot;
    int status = 0;
    for (size_t i = 0; !status && i < slot->run_count; i++) {
        turn->last = final && i + 1 == slot->run_count;
        status = worker_name_target(worker, write_run(worker, item, &slot->runs[i], turn, err), err);
    }
    return status;
}

/* ---- Items without data to write ----------------------------------------- */

static int do_zero(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    struct target *target = &conversion->target;
    turn->last = true;
    int status = convert_digest_zero(conversion, worker->hasher, item->offset, item->length, err);
    if (status || item->kind == ITEM_SKIP)
        return status;
    return worker_name_target(worker, target->driver->zero(target->writer, item->offset, item->length, turn, err), err);
}

/* ---- Writing what is in a slot -------------------------------------------- */

static int record(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    struct slot *slot = worker->slot;
    if (!conversion->target.resume)
        return 0;
    if (item->kind != ITEM_DATA) { /* one run or none, whatever the buffer was used for */
        slot->runs[0] = (struct run){ .kind = item->kind == ITEM_ZERO ? RUN_ZERO : RUN_DATA,
                                      .length = (size_t)item->length };
        slot->run_count = item->kind == ITEM_ZERO || item->kind == ITEM_COPY;
    }
    return resume_record(conversion->target.resume, conversion, item, slot->runs, slot->run_count, err);
}

static bool is_written_data(const struct item *item)
{
    return item->kind == ITEM_DATA || item->kind == ITEM_COPY;
}

static int write_kind(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err)
{
    switch (item->kind) {
    case ITEM_DATA:
        return worker_write(worker, item, true, turn, err);
    case ITEM_COPY:
        return worker_copy(worker, item, turn, err);
    case ITEM_READ:
        return 0;
    default:
        return do_zero(worker, item, turn, err);
    }
}

static int write_slot(struct worker *worker, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    const struct item item = worker->slot->item; /* the slot is somebody else's before all is done */
    struct imgtk_turn turn = { .stile = &conversion->stile, .item = item.number };
    int status = worker_look_away(worker, write_kind(worker, &item, &turn, err), err);
    if (!status)
        status = record(worker, &item, err);
    if (status)
        return status;
    turn_settle(&turn);
    slots_written(&conversion->slots, worker->slot);
    return convert_advance(conversion, item.length, is_written_data(&item) ? item.length : 0, err);
}

/* ---- Filling it ------------------------------------------------------------ */

static int fill_kind(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    if (item->kind == ITEM_DATA) {
        worker_look(worker, item);
        return worker_fill(worker, item, err);
    }
    return item->kind == ITEM_READ ? worker_read(worker, item, err) : 0;
}

static int fill_slot(struct worker *worker, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    struct item *item = &worker->slot->item;
    bool found;
    int status = convert_next_item(conversion, item, &found, err);
    if (!status && found && is_written_data(item))
        status = rate_wait(&conversion->rate, item->length, conversion->job->cancel, err);
    if (!status && found)
        status = fill_kind(worker, item, err);
    if (!status && found && conversion->target.prepares && item->kind == ITEM_DATA) {
        slots_read(&conversion->slots, worker->slot);
        status = prepare_runs(worker, item, err);
    }
    if (status)
        return status;
    if (found)
        slots_filled(&conversion->slots, worker->slot);
    else
        slots_drained(&conversion->slots, worker->slot);
    return 0;
}

/* ---- The loop ---------------------------------------------------------------- */

static int work(struct worker *worker, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    for (;;) {
        if (imgtk_cancel_reason(conversion->job->cancel))
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
        enum slot_task task = slots_take(&conversion->slots, &worker->slot);
        if (task == SLOT_LEAVE)
            return 0;
        int status = task == SLOT_WRITE ? write_slot(worker, err) : fill_slot(worker, err);
        if (status)
            return status;
    }
}

static int worker_init(struct worker *worker, struct conversion *conversion, struct imgtk_error *err)
{
    memset(worker, 0, sizeof(*worker));
    worker->conversion = conversion;
    int status = source_walk_new(&conversion->source, true, &worker->walk, err);
    if (!status && conversion->base)
        status = imgtk_walk_new(conversion->base, &worker->backing_walk, err);
    if (!status && conversion->digest.tree)
        status = digest_hasher_new(conversion->digest.tree, &worker->hasher, err);
    return status;
}

static void worker_free(struct worker *worker)
{
    digest_hasher_free(worker->hasher);
    source_walk_free(worker->walk);
    imgtk_walk_free(worker->backing_walk);
}

/* The first failure is the one that is told; it makes the others stop. */
static void report_failure(struct conversion *conversion, const struct imgtk_error *err)
{
    pthread_mutex_lock(&conversion->lock);
    if (!conversion->error.status)
        conversion->error = *err;
    conversion->position = conversion->source.size;
    pthread_mutex_unlock(&conversion->lock);
    turnstile_fail(&conversion->stile);
    slots_fail(&conversion->slots);
}

void convert_work(struct conversion *conversion)
{
    struct worker worker;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = worker_init(&worker, conversion, &err);
    if (!status)
        status = work(&worker, &err);
    if (status)
        report_failure(conversion, &err);
    worker_free(&worker);
}
