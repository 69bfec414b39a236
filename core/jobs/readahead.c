#include "readahead.h"

#include <pthread.h>
#include <stdlib.h>

#include "imgtk/bytes.h"

enum { DEPTH = 4, MAX_WORKERS = 3, PAGE = 4096 };

struct slot {
    struct readahead_piece piece;
    bool ready;
    int status;
    struct imgtk_error error;
};

struct readahead {
    struct readahead_options options;
    pthread_t threads[MAX_WORKERS];
    unsigned started;
    pthread_mutex_t lock;     /* a leaf, of what follows */
    pthread_cond_t added, read;
    struct slot slots[DEPTH]; /* piece n is in slot n % DEPTH */
    uint64_t taken, begun, end; /* pieces: taken <= begun (being or been read) <= end (added) */
    bool over;
};

/* ---- Reading ------------------------------------------------------------------ */

static void read_slot(struct readahead *ahead, struct slot *slot)
{
    slot->status = ahead->options.read(ahead->options.context, &slot->piece, &slot->error);
}

static void *work(void *context)
{
    struct readahead *ahead = context;
    pthread_mutex_lock(&ahead->lock);
    for (;;) {
        while (ahead->begun == ahead->end && !ahead->over)
            pthread_cond_wait(&ahead->added, &ahead->lock);
        if (ahead->over)
            break;
        struct slot *slot = &ahead->slots[ahead->begun++ % DEPTH];
        pthread_mutex_unlock(&ahead->lock);
        read_slot(ahead, slot);
        pthread_mutex_lock(&ahead->lock);
        slot->ready = true;
        pthread_cond_signal(&ahead->read);
    }
    pthread_mutex_unlock(&ahead->lock);
    return NULL;
}

/* The oldest piece, read; the caller's thread reads it when no other has begun to. */
static struct slot *wait_for_oldest(struct readahead *ahead)
{
    struct slot *slot = &ahead->slots[ahead->taken % DEPTH];
    pthread_mutex_lock(&ahead->lock);
    bool mine = ahead->begun == ahead->taken;
    ahead->begun += mine;
    while (!mine && !slot->ready)
        pthread_cond_wait(&ahead->read, &ahead->lock);
    pthread_mutex_unlock(&ahead->lock);
    if (mine)
        read_slot(ahead, slot);
    return slot;
}

/* ---- Taking ------------------------------------------------------------------- */

static int take_oldest(struct readahead *ahead, struct imgtk_error *err)
{
    struct slot *slot = wait_for_oldest(ahead);
    int status = slot->status;
    if (status && err)
        *err = slot->error;
    if (!status)
        status = ahead->options.take(ahead->options.context, &slot->piece, err);
    pthread_mutex_lock(&ahead->lock);
    ahead->taken++;
    pthread_mutex_unlock(&ahead->lock);
    return status;
}

uint64_t readahead_oldest(const struct readahead *ahead, uint64_t none)
{
    return ahead->taken < ahead->end ? ahead->slots[ahead->taken % DEPTH].piece.offset : none;
}

int readahead_drain(struct readahead *ahead, struct imgtk_error *err)
{
    int status = 0;
    while (!status && ahead->taken < ahead->end)
        status = take_oldest(ahead, err);
    return status;
}

static void add_piece(struct readahead *ahead, uint64_t offset, size_t length)
{
    pthread_mutex_lock(&ahead->lock);
    struct slot *slot = &ahead->slots[ahead->end++ % DEPTH];
    slot->piece.offset = offset;
    slot->piece.length = length;
    slot->ready = false;
    pthread_cond_signal(&ahead->added);
    pthread_mutex_unlock(&ahead->lock);
}

int readahead_add(struct readahead *ahead, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    int status = 0;
    while (!status && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(READAHEAD_SIZE - offset % READAHEAD_SIZE, length);
        if (ahead->end - ahead->taken == DEPTH)
            status = take_oldest(ahead, err);
        if (!status)
            add_piece(ahead, offset, piece);
        offset += piece;
        length -= piece;
    }
    return status;
}

/* ---- Life ---------------------------------------------------------------------- */

static int allocate(struct readahead *ahead, struct imgtk_error *err)
{
    for (size_t i = 0; i < DEPTH; i++) {
        struct readahead_piece *piece = &ahead->slots[i].piece;
        piece->ours = aligned_alloc(PAGE, READAHEAD_SIZE);
        piece->theirs = ahead->options.theirs ? aligned_alloc(PAGE, READAHEAD_SIZE) : NULL;
        if (!piece->ours || (ahead->options.theirs && !piece->theirs))
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    return 0;
}

int readahead_new(const struct readahead_options *options, struct readahead **out, struct imgtk_error *err)
{
    struct readahead *ahead = *out = calloc(1, sizeof(*ahead));
    if (!ahead)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    ahead->options = *options;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->added, NULL);
    pthread_cond_init(&ahead->read, NULL);
    int status = allocate(ahead, err);
    while (!status && ahead->started < options->workers && ahead->started < MAX_WORKERS &&
           pthread_create(&ahead->threads[ahead->started], NULL, work, ahead) == 0)
        ahead->started++;
    return status;
}

void readahead_free(struct readahead *ahead)
{
    if (!ahead)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->over = true;
    pthread_cond_broadcast(&ahead->added);
    pthread_mutex_unlock(&ahead->lock);
    while (ahead->started > 0)
        pthread_join(ahead->threads[--ahead->started], NULL);
    for (size_t i = 0; i < DEPTH; i++) {
        free(ahead->slots[i].piece.ours);
        free(ahead->slots[i].piece.theirs);
    }
    pthread_cond_destroy(&ahead->read);
    pthread_cond_destroy(&ahead->added);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}
