/* One worker: takes items, reads, searches for zeroes, writes. */
#include <stdlib.h>
#include <string.h>

#include "convert_worker.h"
#include "imgtk/bytes.h"
#include "zero.h"

#define BUFFER_ALIGN 4096u
#define SALVAGE_STEP (64u << 10)
#define SALVAGE_SECTOR 512u

/* ---- Reading ------------------------------------------------------------ */

/* Halves what cannot be read down to a sector, so that only that is lost. */
static int salvage(struct worker *worker, uint8_t *buf, size_t length, uint64_t offset)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = source_walk_read(worker->walk, buf, length, offset, &err);
    if (!status)
        return 0;
    if (length > SALVAGE_SECTOR) {
        size_t step = length > SALVAGE_STEP ? SALVAGE_STEP : SALVAGE_SECTOR;
        for (size_t at = 0; at < length; at += step)
            salvage(worker, buf + at, length - at < step ? length - at : step, offset + at);
        return 0;
    }
    memset(buf, 0, length);
    worker->conversion->job->salvaged(worker->conversion->job->salvage_context, offset, length, err.message);
    return 0;
}

static int read_item(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    if (worker->conversion->job->salvaged)
        return salvage(worker, worker->buffer, item->length, item->offset);
    return source_walk_read(worker->walk, worker->buffer, item->length, item->offset, err);
}

/* Past its end a backing file reads as zeroes. */
static int read_backing(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    if (!worker->backing_walk)
        return 0;
    uint64_t size = imgtk_image_size(worker->conversion->base);
    size_t present = item->offset < size ? (size_t)imgtk_min_u64(item->length, size - item->offset) : 0;
    memset(worker->below + present, 0, item->length - present);
    return imgtk_walk_read(worker->backing_walk, worker->below, present, item->offset, err);
}

/* ---- What to write of it ------------------------------------------------ */

static enum run_kind judge(const struct worker *worker, size_t start, size_t length)
{
    const struct conversion *conversion = worker->conversion;
    const uint8_t *bytes = worker->buffer + start;
    if (worker->below && memcmp(bytes, worker->below + start, length) == 0)
        return RUN_DROP;
    if (!conversion->find_zeroes || !bytes_are_zero(bytes, length))
        return RUN_DATA;
    return worker->below || !conversion->target.reads_zero ? RUN_ZERO : RUN_DROP;
}

/*
 * Whether a run of data continues over zeroes to the next data, for the driver
 * to drop: of two writes, the second one would be compressed while it holds
 * the turn that the first one took.
 */
static bool joins(const struct worker *worker, const struct run *run, enum run_kind kind)
{
    return worker->conversion->target.drops_zeroes && !worker->below && run->kind == RUN_DATA && kind == RUN_DATA;
}

size_t worker_find_runs(struct worker *worker, size_t length)
{
    size_t count = 0, granule = worker->conversion->granule;
    struct run *runs = worker->runs;
    for (size_t at = 0; at < length; at += granule) {
        size_t piece = length - at < granule ? length - at : granule;
        enum run_kind kind = judge(worker, at, piece);
        if (kind == RUN_DROP)
            continue;
        struct run *run = count > 0 ? &runs[count - 1] : NULL;
        if (run && run->kind == kind && (run->start + run->length == at || joins(worker, run, kind)))
            run->length = at + piece - run->start;
        else
            runs[count++] = (struct run){ kind, at, piece };
    }
    return count;
}

int worker_name_target(const struct worker *worker, int status, struct imgtk_error *err)
{
    return status ? imgtk_fail_prefix(err, "%s", worker->conversion->job->target.name) : 0;
}

static int write_run(struct worker *worker, const struct item *item, const struct run *run, struct imgtk_turn *turn,
                     struct imgtk_error *err)
{
    struct target *target = &worker->conversion->target;
    if (run->kind == RUN_ZERO)
        return target->driver->zero(target->writer, item->offset + run->start, run->length, turn, err);
    struct imgtk_write write = {
        .buf = worker->buffer + run->start, .length = run->length, .offset = item->offset + run->start, .turn = turn };
    return target->driver->write(target->writer, &write, err);
}

int worker_read(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    int status = worker->has_read ? 0 : read_item(worker, item, err);
    if (status)
        return status;
    return convert_digest_data(worker->conversion, worker->hasher, worker->buffer, item->offset, item->length, err);
}

int worker_write(struct worker *worker, const struct item *item, bool final, struct imgtk_turn *turn,
                 struct imgtk_error *err)
{
    int status = worker_read(worker, item, err);
    if (!status)
        status = read_backing(worker, item, err);
    worker->run_count = status ? 0 : worker_find_runs(worker, item->length);
    for (size_t i = 0; !status && i < worker->run_count; i++) {
        turn->last = final && i + 1 == worker->run_count;
        status = worker_name_target(worker, write_run(worker, item, &worker->runs[i], turn, err), err);
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

/* ---- The loop ----------------------------------------------------------- */

static int record(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    if (!conversion->target.resume)
        return 0;
    if (item->kind != ITEM_DATA) { /* one run or none, whatever the buffer was used for */
        worker->runs[0] = (struct run){ item->kind == ITEM_ZERO ? RUN_ZERO : RUN_DATA, 0, (size_t)item->length };
        worker->run_count = item->kind == ITEM_ZERO || item->kind == ITEM_COPY;
    }
    return resume_record(conversion->target.resume, conversion, item, worker->runs, worker->run_count, err);
}

static bool is_written_data(const struct item *item)
{
    return item->kind == ITEM_DATA || item->kind == ITEM_COPY;
}

static int do_kind(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err)
{
    switch (item->kind) {
    case ITEM_DATA:
        return worker_write(worker, item, true, turn, err);
    case ITEM_COPY:
        return worker_copy(worker, item, turn, err);
    case ITEM_READ:
        return worker_read(worker, item, err);
    default:
        return do_zero(worker, item, turn, err);
    }
}

static int do_item(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    struct imgtk_turn turn = { .stile = &worker->conversion->stile, .item = item->number };
    int status = do_kind(worker, item, &turn, err);
    if (!status)
        status = record(worker, item, err);
    if (status)
        return status;
    turn_settle(&turn);
    return convert_advance(worker->conversion, item->length, is_written_data(item) ? item->length : 0, err);
}

/* What is read as it comes is read in the order of items; only what follows runs in parallel. */
static int next_in_order(struct worker *worker, struct item *out, bool *found, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    pthread_mutex_lock(&conversion->reading);
    int status = convert_next_item(conversion, out, found, err);
    worker->has_read = !status && *found && (out->kind == ITEM_DATA || out->kind == ITEM_READ);
    if (worker->has_read)
        status = read_item(worker, out, err);
    pthread_mutex_unlock(&conversion->reading);
    return status;
}

static int next_item(struct worker *worker, struct item *out, bool *found, struct imgtk_error *err)
{
    return worker->conversion->in_order ? next_in_order(worker, out, found, err)
                                        : convert_next_item(worker->conversion, out, found, err);
}

static int work(struct worker *worker, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    for (;;) {
        struct item item;
        bool found;
        if (conversion->job->cancel && *conversion->job->cancel)
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
        int status = next_item(worker, &item, &found, err);
        if (!status && found && is_written_data(&item))
            status = rate_wait(&conversion->rate, item.length, conversion->job->cancel, err);
        if (!status && found)
            status = do_item(worker, &item, err);
        if (status || !found)
            return status;
    }
}

static int worker_init(struct worker *worker, struct conversion *conversion, struct imgtk_error *err)
{
    size_t size = conversion->item_size;
    memset(worker, 0, sizeof(*worker));
    worker->conversion = conversion;
    int status = source_walk_new(&conversion->source, true, &worker->walk, err);
    if (!status && conversion->base) {
        status = imgtk_walk_new(conversion->base, &worker->backing_walk, err);
        worker->below = aligned_alloc(BUFFER_ALIGN, size);
    }
    if (!status && conversion->digest.tree)
        status = digest_hasher_new(conversion->digest.tree, &worker->hasher, err);
    worker->buffer = aligned_alloc(BUFFER_ALIGN, size);
    worker->runs = calloc(size / conversion->granule + 1, sizeof(*worker->runs));
    if (!status && (!worker->buffer || !worker->runs || (conversion->base && !worker->below)))
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    return status;
}

static void worker_free(struct worker *worker)
{
    digest_hasher_free(worker->hasher);
    source_walk_free(worker->walk);
    imgtk_walk_free(worker->backing_walk);
    free(worker->buffer);
    free(worker->below);
    free(worker->runs);
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
