/* Items that the kernel copies, or shares, from a host file to the target. */
#include "context/context.h"
#include "convert_worker.h"
#include "imgtk/bytes.h"
#include "storage/storage.h"

/* A piece of at most item_size; its data are where `piece` says. */
static int write_placed(struct worker *worker, const struct item *piece, struct imgtk_storage *to, uint64_t to_offset,
                        struct imgtk_error *err)
{
    struct slot *slot = worker->slot;
    int status = 0;
    if (!worker_look(worker, piece))
        status = imgtk_storage_pread(piece->from, slot->buffer, piece->length, piece->from_offset, err);
    if (status)
        return imgtk_fail_prefix(err, "%s", imgtk_storage_name(piece->from));
    worker_find_runs(worker, piece->length);
    for (size_t i = 0; !status && i < slot->run_count; i++)
        status = imgtk_storage_pwrite(to, slot->data + slot->runs[i].start, slot->runs[i].length,
                                      to_offset + slot->runs[i].start, err);
    return worker_look_away(worker, worker_name_target(worker, status, err), err);
}

/* The kernel would not: the place is decided, so the bytes go there by way of this process. */
static int copy_by_hand(struct worker *worker, struct imgtk_storage *from, uint64_t from_offset,
                        struct imgtk_storage *to, uint64_t to_offset, uint64_t length, struct imgtk_error *err)
{
    struct item piece = { .from = from };
    int status = 0;
    for (uint64_t done = 0; !status && done < length; done += piece.length) {
        piece.from_offset = from_offset + done;
        piece.length = imgtk_min_u64(length - done, worker->conversion->item_size);
        status = write_placed(worker, &piece, to, to_offset + done, err);
    }
    return status;
}

static void stop_copying(struct conversion *conversion)
{
    pthread_mutex_lock(&conversion->lock);
    if (conversion->copy != COPY_BY_HAND)
        context_note(conversion->context, "copy: by read and write, since the two share no file system that shares blocks");
    conversion->copy = COPY_BY_HAND;
    pthread_mutex_unlock(&conversion->lock);
}

/* The format has no place for plain copies, as it turns out with the first one. */
static int write_instead(struct worker *worker, const struct item *item, struct imgtk_turn *turn,
                         struct imgtk_error *err)
{
    struct item piece = { .from = item->from };
    int status = 0;
    stop_copying(worker->conversion);
    for (uint64_t done = 0; !status && done < item->length; done += piece.length) {
        piece.offset = item->offset + done;
        piece.from_offset = item->from_offset + done;
        piece.length = imgtk_min_u64(item->length - done, worker->conversion->item_size);
        worker_look(worker, &piece);
        status = worker_fill(worker, &piece, err);
        if (!status)
            status = worker_write(worker, &piece, done + piece.length == item->length, turn, err);
        status = worker_look_away(worker, status, err);
    }
    return status;
}

static int copy_placed(struct worker *worker, const struct item *item, struct imgtk_storage *to, uint64_t to_offset,
                       struct imgtk_error *err)
{
    uint64_t done = 0;
    int status = 0;
    while (!status && done < item->length) {
        uint64_t copied = 0;
        status = imgtk_storage_copy(item->from, item->from_offset + done, to, to_offset + done, item->length - done,
                                    &copied, err);
        done += copied;
        if (copied == 0)
            break;
    }
    if (status || done == item->length)
        return worker_name_target(worker, status, err);
    if (!storage_may_copy(item->from, to))
        stop_copying(worker->conversion);
    return copy_by_hand(worker, item->from, item->from_offset + done, to, to_offset + done, item->length - done, err);
}

/* Sharing blocks and reading them once for the digest is faster than reading and writing them. */
static int read_for_digest(struct worker *worker, const struct item *item, struct imgtk_error *err)
{
    struct item piece = { .offset = item->offset };
    uint64_t end = item->offset + item->length;
    int status = 0;
    for (; worker->hasher && !status && piece.offset < end; piece.offset += piece.length) {
        piece.length = imgtk_min_u64(end - piece.offset, worker->conversion->item_size);
        status = worker_read(worker, &piece, err);
    }
    return status;
}

int worker_copy(struct worker *worker, const struct item *item, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct conversion *conversion = worker->conversion;
    struct imgtk_write write = { .length = (size_t)item->length, .offset = item->offset, .turn = turn };
    struct imgtk_storage *to = NULL;
    uint64_t to_offset = 0;
    turn->last = true; /* the copy itself needs no turn */
    int status = conversion->target.driver->place(conversion->target.writer, &write, &to, &to_offset, err);
    if (status == IMGTK_EUNSUPPORTED)
        return write_instead(worker, item, turn, err);
    if (!status)
        status = copy_placed(worker, item, to, to_offset, err);
    return status ? status : read_for_digest(worker, item, err);
}
