/*
 * Reading ahead of a front of reads, in blocks that threads of their own ask for.
 *
 * It is for reads that are small against what a request takes: the neighbouring clusters of a compressed image. What
 * fails here fails for nobody: the block is as if it had not been asked for, and who needs its bytes asks for them.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "http.h"
#include "imgtk/bytes.h"

enum {
    BLOCK = 1 << 20,
    BLOCKS = 12,
    THREADS = 4,
    MOST_AHEAD = THREADS * BLOCK,
    LARGEST = 512 << 10, /* a longer read is worth a request of its own, straight into the reader's buffer */
    HUGE_PAGE = 2 << 20,
    GRAIN = BLOCK / 64,
    KEPT = 8 << 20 /* bytes that are read elsewhere before an idle block is given up */
};

enum state { EMPTY, WANTED, LOADING, READY };

struct block {
    enum state state;
    unsigned users; /* that wait for its bytes or copy them */
    uint64_t number;
    uint64_t touched; /* the clock when it was asked for or read */
    uint64_t unread;  /* a bit per grain */
    uint8_t *bytes;
};

struct http_ahead {
    struct http *http;
    pthread_mutex_t lock; /* a leaf, of what follows but bytes: these are the loader's, of a READY block its users' */
    pthread_cond_t wanted, ended;
    struct http_fronts fronts;
    struct block blocks[BLOCKS];
    uint8_t *memory; /* of all blocks; NULL: none has been wanted yet */
    uint64_t clock;  /* bytes that were read */
    pthread_t threads[THREADS];
    unsigned started, limit;
    bool over;
};

/* ---- Loading --------------------------------------------------------------------- */

static size_t length_of(const struct http_ahead *ahead, const struct block *block)
{
    return (size_t)imgtk_min_u64(BLOCK, ahead->http->size - block->number * BLOCK);
}

/* With the lock, which is let go meanwhile. After a failure what has been learned of the reads counts no more. */
static void load(struct http_ahead *ahead, struct block *block)
{
    block->state = LOADING;
    pthread_mutex_unlock(&ahead->lock);
    int status = http_get_ahead(ahead->http, block->bytes, length_of(ahead, block), block->number * BLOCK, NULL);
    pthread_mutex_lock(&ahead->lock);
    block->state = status ? EMPTY : READY;
    if (status)
        http_fronts_forget(&ahead->fronts);
    pthread_cond_broadcast(&ahead->ended);
}

static struct block *find_wanted(struct http_ahead *ahead)
{
    struct block *first = NULL;
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *block = &ahead->blocks[i];
        if (block->state == WANTED && (!first || block->number < first->number))
            first = block;
    }
    return first;
}

static void *work(void *context)
{
    struct http_ahead *ahead = context;
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->over) {
        struct block *block = find_wanted(ahead);
        if (block)
            load(ahead, block);
        else
            pthread_cond_wait(&ahead->wanted, &ahead->lock);
    }
    pthread_mutex_unlock(&ahead->lock);
    return NULL;
}

/* ---- Wanting --------------------------------------------------------------------- */

static struct block *find(struct http_ahead *ahead, uint64_t number)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (ahead->blocks[i].state != EMPTY && ahead->blocks[i].number == number)
            return &ahead->blocks[i];
    return NULL;
}

static bool is_needless(const struct http_ahead *ahead, const struct block *block)
{
    if (block->users > 0 || block->state == LOADING)
        return false;
    return block->state == EMPTY || (block->state == READY && block->unread == 0) ||
           ahead->clock - block->touched > KEPT;
}

static bool is_better(const struct block *block, const struct block *other)
{
    if (!other || !block->bytes != !other->bytes)
        return !other || block->bytes;
    return block->touched < other->touched;
}

/* In huge pages, where there are some: they are had sooner than as many small ones. */
static bool give_memory(struct http_ahead *ahead, struct block *block)
{
    if (!ahead->memory) {
        ahead->memory = aligned_alloc(HUGE_PAGE, BLOCKS * BLOCK);
        if (ahead->memory)
            madvise(ahead->memory, BLOCKS * BLOCK, MADV_HUGEPAGE);
    }
    block->bytes = ahead->memory ? ahead->memory + (block - ahead->blocks) * BLOCK : NULL;
    return block->bytes;
}

/* One that has been read, or that nobody came for; of these the one that was touched least recently. */
static struct block *find_needless(struct http_ahead *ahead)
{
    struct block *oldest = NULL;
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *block = &ahead->blocks[i];
        if (is_needless(ahead, block) && is_better(block, oldest))
            oldest = block;
    }
    return oldest && (oldest->bytes || give_memory(ahead, oldest)) ? oldest : NULL;
}

static bool want(struct http_ahead *ahead, uint64_t number)
{
    struct block *block = find_needless(ahead);
    if (!block)
        return false;
    block->state = WANTED;
    block->number = number;
    block->touched = ahead->clock;
    size_t grains = (length_of(ahead, block) + GRAIN - 1) / GRAIN;
    block->unread = UINT64_MAX >> (64 - grains);
    if (ahead->started < ahead->limit && pthread_create(&ahead->threads[ahead->started], NULL, work, ahead) == 0)
        ahead->started++;
    pthread_cond_signal(&ahead->wanted);
    return true;
}

/* No further than the reads have come, so that hardly more is read in vain than was read for a reason. */
static void want_ahead(struct http_ahead *ahead, struct http_front *front, uint64_t offset)
{
    uint64_t start = offset > front->asked ? offset : front->asked;
    uint64_t end = front->end + imgtk_min_u64(http_front_passed(front), MOST_AHEAD);
    end = imgtk_min_u64(end, ahead->http->size);
    for (uint64_t number = start / BLOCK; number * BLOCK < end; number++) {
        if (!find(ahead, number) && !want(ahead, number))
            return;
        front->asked = (number + 1) * BLOCK;
    }
}

void http_ahead_note(struct http_ahead *ahead, size_t length, uint64_t offset)
{
    pthread_mutex_lock(&ahead->lock);
    ahead->clock += length;
    struct http_front *front = length <= LARGEST ? http_fronts_note(&ahead->fronts, offset, length) : NULL;
    if (front)
        want_ahead(ahead, front, offset);
    pthread_mutex_unlock(&ahead->lock);
}

/* ---- Taking ---------------------------------------------------------------------- */

/* Whether its bytes are there; else it has failed. Who comes before a thread does loads it. */
static bool wait_for(struct http_ahead *ahead, struct block *block)
{
    if (block->state == WANTED)
        load(ahead, block);
    while (block->state == LOADING)
        pthread_cond_wait(&ahead->ended, &ahead->lock);
    return block->state == READY;
}

static void copy(struct http_ahead *ahead, struct block *block, void *buf, size_t length, size_t within)
{
    pthread_mutex_unlock(&ahead->lock);
    memcpy(buf, block->bytes + within, length);
    pthread_mutex_lock(&ahead->lock);
    size_t first = within / GRAIN, last = (within + length - 1) / GRAIN;
    block->unread &= ~((UINT64_MAX >> (63 - (last - first))) << first);
    block->touched = ahead->clock;
}

static size_t find_gap(struct http_ahead *ahead, size_t length, uint64_t offset)
{
    size_t gap = (size_t)imgtk_min_u64(length, BLOCK - offset % BLOCK);
    while (gap < length && !find(ahead, (offset + gap) / BLOCK))
        gap += (size_t)imgtk_min_u64(length - gap, BLOCK);
    return gap;
}

size_t http_ahead_take(struct http_ahead *ahead, void *buf, size_t length, uint64_t offset, size_t *gap)
{
    size_t within = (size_t)(offset % BLOCK), taken = 0;
    pthread_mutex_lock(&ahead->lock);
    struct block *block = find(ahead, offset / BLOCK);
    if (block) {
        block->users++;
        if (wait_for(ahead, block)) {
            taken = (size_t)imgtk_min_u64(length, BLOCK - within);
            copy(ahead, block, buf, taken, within);
        }
        block->users--;
    }
    *gap = taken ? 0 : find_gap(ahead, length, offset);
    pthread_mutex_unlock(&ahead->lock);
    return taken;
}

/* ---- Life ------------------------------------------------------------------------ */

int http_ahead_new(struct http *http, struct http_ahead **out, struct imgtk_error *err)
{
    struct http_ahead *ahead = *out = calloc(1, sizeof(*ahead));
    if (!ahead)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    ahead->http = http;
    /* A reader that is in need of a connection finds one. */
    ahead->limit = (unsigned)imgtk_min_u64(THREADS, http->handles.limit - 1);
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->wanted, NULL);
    pthread_cond_init(&ahead->ended, NULL);
    return 0;
}

void http_ahead_free(struct http_ahead *ahead)
{
    if (!ahead)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->over = true;
    pthread_cond_broadcast(&ahead->wanted);
    pthread_mutex_unlock(&ahead->lock);
    while (ahead->started > 0)
        pthread_join(ahead->threads[--ahead->started], NULL);
    free(ahead->memory);
    pthread_cond_destroy(&ahead->ended);
    pthread_cond_destroy(&ahead->wanted);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}
