/* Passes over many items: by all threads, and what they find is told in order. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"

enum { BATCH = 4096 };

struct batch {
    struct qcow2_check_state *state;
    const struct qcow2_pass *pass;
    uint64_t first, end;
    _Atomic uint64_t next;          /* item that nobody has taken; end or more: there is none, or none is wanted */
    bool tell[BATCH];
    pthread_mutex_t lock;           /* what follows, and the sums of the state; a leaf */
    uint64_t failed;                /* the first item that failed; UINT64_MAX: none */
    int status;
    struct imgtk_error error;
};

static void fail_at(struct batch *batch, uint64_t item, int status, const struct imgtk_error *error)
{
    atomic_store(&batch->next, batch->end);
    pthread_mutex_lock(&batch->lock);
    if (item < batch->failed) {
        batch->failed = item;
        batch->status = status;
        batch->error = *error;
    }
    pthread_mutex_unlock(&batch->lock);
}

static void merge(struct batch *batch, const struct qcow2_check_worker *worker)
{
    struct qcow2_check_state *state = batch->state;
    struct imgtk_check *result = state->result;
    pthread_mutex_lock(&batch->lock);
    result->allocated_clusters += worker->allocated;
    result->fragmented_clusters += worker->fragmented;
    result->compressed_clusters += worker->compressed;
    uint64_t end_offset = worker->end_cluster << state->image->geometry.cluster_bits;
    if (end_offset > result->image_end_offset)
        result->image_end_offset = end_offset;
    state->incomplete |= worker->incomplete;
    state->beyond |= worker->beyond;
    state->rebuild |= worker->rebuild;
    pthread_mutex_unlock(&batch->lock);
}

/* Items are taken in order, so that those before the first that fails are all looked at. */
static void look_at_items(void *context)
{
    struct batch *batch = context;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct qcow2_check_worker worker = { .table = malloc((size_t)batch->state->image->geometry.cluster_size) };
    uint64_t item;
    int status = worker.table ? 0 : imgtk_fail(&err, IMGTK_ENOMEM, "out of memory for a table");
    while ((item = atomic_fetch_add(&batch->next, 1)) < batch->end) {
        if (status == 0)
            status = batch->pass->look(batch->state, &worker, batch->pass->context, item,
                                       &batch->tell[item - batch->first], &err);
        if (status != 0)
            fail_at(batch, item, status, &err);
    }
    merge(batch, &worker);
    qcow2_refcounts_let_go(batch->state, &worker);
    free(worker.table);
}

static int run_batch(struct batch *batch, struct imgtk_error *err)
{
    struct qcow2_check_state *state = batch->state;
    unsigned workers = state->result->workers;
    if (workers > batch->end - batch->first)
        workers = (unsigned)(batch->end - batch->first);
    imgtk_workers_run(workers, look_at_items, batch);
    int status = 0;
    for (uint64_t i = batch->first; i < imgtk_min_u64(batch->end, batch->failed) && status == 0; i++)
        if (batch->tell[i - batch->first])
            status = batch->pass->tell(state, batch->pass->context, i, err);
    if (status == 0 && batch->status != 0 && err)
        *err = batch->error;
    return status == 0 ? batch->status : status;
}

int qcow2_pass_run(struct qcow2_check_state *state, const struct qcow2_pass *pass, struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t first = 0; first < pass->items && status == 0; first += BATCH) {
        struct batch batch = { .state = state, .pass = pass, .first = first,
                               .end = imgtk_min_u64(first + BATCH, pass->items), .failed = UINT64_MAX };
        atomic_init(&batch.next, first);
        pthread_mutex_init(&batch.lock, NULL);
        status = run_batch(&batch, err);
        pthread_mutex_destroy(&batch.lock);
    }
    return status;
}
