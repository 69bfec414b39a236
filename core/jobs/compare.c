/* Whether two images read the same. One thread at a time walks, several read and compare. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "chain/image_internal.h"
#include "edit/same_place.h"
#include "imgtk/bytes.h"
#include "imgtk/jobs.h"

#define PIECE (1u << 20)
#define SECTOR 512u      /* what a mismatch is told in, as qemu-img tells it */
#define MAX_WORKERS 16u  /* two buffers of PIECE each */
#define PAGE 4096u       /* the kernel copies to pages three times as fast as to malloc() plus 16 */

struct comparison {
    struct imgtk_context *context;
    struct imgtk_compare *job;
    uint64_t size;             /* of the larger image; the other one is followed by zeroes */
    pthread_mutex_t lock;      /* everything below */
    struct imgtk_walk *walks[2];
    uint64_t cursor;           /* what lies before it is decided or being read */
    struct same_place places;
    struct imgtk_progress progress;
    uint64_t found;            /* offset of the first difference so far; UINT64_MAX: none */
    enum imgtk_difference difference;
    uint64_t failed;           /* offset of the first failure so far; UINT64_MAX: none */
    struct imgtk_error error;
};

/* ---- Two extents ---------------------------------------------------------- */

static bool is_same_allocation(const struct imgtk_chain_extent *a, const struct imgtk_chain_extent *b)
{
    return a->extent.kind == b->extent.kind && a->present == b->present &&
           (a->extent.flags & IMGTK_EXTENT_COMPRESSED) == (b->extent.flags & IMGTK_EXTENT_COMPRESSED);
}

/* ---- Walking (under the lock) --------------------------------------------- */

static void found_difference(struct comparison *comparison, uint64_t offset, enum imgtk_difference difference)
{
    if (offset >= comparison->found)
        return;
    comparison->found = offset;
    comparison->difference = difference;
}

static void failed_at(struct comparison *comparison, uint64_t offset, bool extents, const struct imgtk_error *err)
{
    if (offset >= comparison->failed)
        return;
    comparison->failed = offset;
    comparison->job->extents_failed = extents;
    comparison->error = *err;
}

static int look(struct comparison *comparison, unsigned which, struct imgtk_chain_extent *out, struct imgtk_error *err)
{
    uint64_t offset = comparison->cursor, size = imgtk_image_size(comparison->job->images[which]);
    if (offset < size)
        return imgtk_walk_next(comparison->walks[which], offset, size - offset, out, err);
    *out = (struct imgtk_chain_extent){ .start = offset,
                                        .extent = { .length = comparison->size - offset, .kind = IMGTK_EXTENT_ZERO } };
    return 0;
}

enum step { STEP_SKIP, STEP_READ, STEP_END };

/* What has to be done with the bytes at the cursor, and with how many of them. */
static enum step next_step(struct comparison *comparison, uint64_t *length)
{
    struct imgtk_chain_extent extents[2];
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (look(comparison, 0, &extents[0], &err) || look(comparison, 1, &extents[1], &err)) {
        failed_at(comparison, comparison->cursor, true, &err);
        return STEP_END;
    }
    *length = imgtk_min_u64(extents[0].extent.length, extents[1].extent.length);
    if (comparison->job->strict && !is_same_allocation(&extents[0], &extents[1])) {
        found_difference(comparison, comparison->cursor, IMGTK_DIFFERENT_ALLOCATION);
        return STEP_END;
    }
    if (extents[0].extent.kind == IMGTK_EXTENT_ZERO && extents[1].extent.kind == IMGTK_EXTENT_ZERO)
        return STEP_SKIP;
    if (extents[0].extent.kind == extents[1].extent.kind && same_place(&comparison->places, comparison->job->images, extents))
        return STEP_SKIP;
    return STEP_READ;
}

static bool is_over(const struct comparison *comparison)
{
    return comparison->cursor >= comparison->size || comparison->found != UINT64_MAX ||
           comparison->failed != UINT64_MAX;
}

static void advance(struct comparison *comparison, uint64_t done, uint64_t copied)
{
    const struct imgtk_compare *job = comparison->job;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    comparison->progress.done += done;
    comparison->progress.copied += copied;
    bool stop = job->progress && job->progress(job->progress_context, &comparison->progress);
    if (stop || imgtk_cancel_reason(job->cancel)) {
        imgtk_fail(&err, IMGTK_ECANCELLED, "interrupted");
        failed_at(comparison, 0, false, &err);
    }
}

/* The next bytes that have to be read from both, at most PIECE; 0: there are none. */
static size_t next_piece(struct comparison *comparison, uint64_t *start)
{
    size_t length = 0;
    while (length < PIECE && !is_over(comparison)) {
        uint64_t stretch;
        enum step step = next_step(comparison, &stretch);
        if (step == STEP_END || (step == STEP_SKIP && length > 0))
            break;
        if (step == STEP_SKIP) {
            comparison->cursor += stretch;
            advance(comparison, stretch, 0);
            continue;
        }
        stretch = imgtk_min_u64(stretch, PIECE - length);
        if (length == 0)
            *start = comparison->cursor;
        comparison->cursor += stretch;
        length += (size_t)stretch;
    }
    return length;
}

/* ---- Reading -------------------------------------------------------------- */

static int read_padded(struct imgtk_image *image, unsigned char *buf, size_t length, uint64_t offset,
                       struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(image);
    size_t there = offset < size ? (size_t)imgtk_min_u64(length, size - offset) : 0;
    memset(buf + there, 0, length - there);
    return there > 0 ? imgtk_image_read(image, buf, there, offset, err) : 0;
}

/* The first sector that differs, as an offset into the buffers; length: none does. */
static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t length)
{
    if (memcmp(a, b, length) == 0)
        return length;
    size_t at = 0;
    while (memcmp(a + at, b + at, length - at < SECTOR ? length - at : SECTOR) == 0)
        at += SECTOR;
    return at;
}

static void compare_piece(struct comparison *comparison, unsigned char *buf, uint64_t start, size_t length)
{
    struct imgtk_image *const *images = comparison->job->images;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    size_t at = length;
    int status = read_padded(images[0], buf, length, start, &err);
    if (!status)
        status = read_padded(images[1], buf + PIECE, length, start, &err);
    if (!status)
        at = first_difference(buf, buf + PIECE, length);
    pthread_mutex_lock(&comparison->lock);
    if (status)
        failed_at(comparison, start, false, &err);
    else if (at < length)
        found_difference(comparison, start + at, IMGTK_DIFFERENT_CONTENT);
    advance(comparison, length, length);
    pthread_mutex_unlock(&comparison->lock);
}

static void work(void *context)
{
    struct comparison *comparison = context;
    unsigned char *buf = aligned_alloc(PAGE, 2 * (size_t)PIECE);
    for (size_t length = 1; length > 0;) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        uint64_t start = 0;
        pthread_mutex_lock(&comparison->lock);
        if (!buf && imgtk_fail(&err, IMGTK_ENOMEM, "out of memory"))
            failed_at(comparison, 0, false, &err);
        length = next_piece(comparison, &start);
        pthread_mutex_unlock(&comparison->lock);
        if (length > 0)
            compare_piece(comparison, buf, start, length);
    }
    free(buf);
}

/* ---- The job -------------------------------------------------------------- */

static void run_workers(struct comparison *comparison)
{
    unsigned wanted = comparison->job->workers ? comparison->job->workers : imgtk_context_workers(comparison->context);
    for (unsigned i = 0; !comparison->job->workers && i < 2; i++)
        if (image_workers(comparison->job->images[i]) > wanted)
            wanted = image_workers(comparison->job->images[i]);
    imgtk_workers_run(wanted < MAX_WORKERS ? wanted : MAX_WORKERS, work, comparison);
}

static int run(struct comparison *comparison, struct imgtk_error *err)
{
    struct imgtk_compare *job = comparison->job;
    for (unsigned i = 0; i < 2; i++) {
        int status = imgtk_walk_new(job->images[i], &comparison->walks[i], err);
        if (status)
            return status;
    }
    run_workers(comparison);
    if (comparison->failed < comparison->found) {
        if (err)
            *err = comparison->error;
        return comparison->error.status;
    }
    job->difference = comparison->difference;
    job->offset = comparison->found != UINT64_MAX ? comparison->found : 0;
    return 0;
}

int imgtk_compare(struct imgtk_context *context, struct imgtk_compare *job, struct imgtk_error *err)
{
    uint64_t sizes[2] = { imgtk_image_size(job->images[0]), imgtk_image_size(job->images[1]) };
    struct comparison comparison = {
        .context = context, .job = job, .size = sizes[0] > sizes[1] ? sizes[0] : sizes[1],
        .found = UINT64_MAX, .failed = UINT64_MAX,
    };
    job->difference = IMGTK_SAME;
    job->offset = 0;
    job->extents_failed = false;
    if (job->strict && sizes[0] != sizes[1]) {
        job->difference = IMGTK_DIFFERENT_SIZE;
        return 0;
    }
    comparison.progress = (struct imgtk_progress){ .phase = "compare", .total = comparison.size };
    pthread_mutex_init(&comparison.lock, NULL);
    int status = run(&comparison, err);
    imgtk_walk_free(comparison.walks[0]);
    imgtk_walk_free(comparison.walks[1]);
    pthread_mutex_destroy(&comparison.lock);
    return status;
}
