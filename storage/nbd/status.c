/* What the server says about ranges: where they read as zeroes, and how deep in its chain they are held. */
#include <errno.h>
#include <stdlib.h>

#include "imgtk/bytes.h"
#include "nbd.h"

#define STATUS_LENGTH ((UINT64_C(1) << 32) - NBD_MAX_BLOCK) /* the protocol counts in 32 bits */

const char *const nbd_context_names[NBD_CONTEXTS] = {
    [NBD_ALLOCATION] = LIBNBD_CONTEXT_BASE_ALLOCATION, [NBD_DEPTH] = "qemu:allocation-depth"
};

/* The part of the last answer that covers the offset. */
static bool recall(struct nbd *nbd, enum nbd_context context, uint64_t offset, uint64_t *length, uint32_t *value)
{
    const struct nbd_status *status = &nbd->status[context];
    bool found = false;
    pthread_mutex_lock(&nbd->lock);
    uint64_t start = status->start;
    for (size_t i = 0; !found && i < status->count && start <= offset; i++) {
        uint64_t end = start + status->extents[i].length;
        found = offset < end;
        if (found) {
            *length = end - offset;
            *value = status->extents[i].value;
        }
        start = end;
    }
    pthread_mutex_unlock(&nbd->lock);
    return found;
}

static void remember(struct nbd *nbd, const struct nbd_status *answers)
{
    pthread_mutex_lock(&nbd->lock);
    for (size_t i = 0; i < NBD_CONTEXTS; i++)
        if (answers[i].count > 0)
            nbd->status[i] = answers[i];
    pthread_mutex_unlock(&nbd->lock);
}

static int ask_server(struct nbd *nbd, uint64_t offset, struct nbd_status *answers, struct imgtk_error *err)
{
    struct nbd_batch batch;
    struct nbd_request request = { .command = NBD_STATUS, .offset = imgtk_round_down(offset, nbd->block),
                                   .batch = &batch };
    for (size_t i = 0; i < NBD_CONTEXTS; i++)
        request.status_out[i] = nbd->tells[i] ? &answers[i] : NULL;
    request.length = imgtk_min_u64(nbd->size - request.offset, imgtk_round_down(STATUS_LENGTH, nbd->block));
    nbd_batch_begin(&batch, 1);
    nbd_connection_send(nbd_choose_connection(nbd), &request, 1);
    nbd_batch_wait(&batch);
    if (request.error == ENOTCONN || request.error == ETIMEDOUT)
        return nbd_fail_request(&request, err);
    if (request.error) /* a server need not know: then all is data */
        atomic_store(&nbd->no_status, true);
    return 0;
}

static int ask(struct nbd *nbd, uint64_t offset, struct imgtk_error *err)
{
    struct nbd_status *answers = calloc(NBD_CONTEXTS, sizeof(*answers));
    if (!answers)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = ask_server(nbd, offset, answers, err);
    if (!status && answers[NBD_ALLOCATION].count == 0)
        atomic_store(&nbd->no_status, true);
    if (!status)
        remember(nbd, answers);
    free(answers);
    return status;
}

/* *value stays as it is where the server does not tell. */
static int tell(struct nbd *nbd, enum nbd_context context, uint64_t offset, uint64_t *length, uint32_t *value,
                struct imgtk_error *err)
{
    if (!nbd->tells[context] || offset >= nbd->size || atomic_load(&nbd->no_status))
        return 0;
    /* What was written since the answer would be forgotten. */
    if (!nbd->writable && recall(nbd, context, offset, length, value))
        return 0;
    int status = ask(nbd, offset, err);
    if (!status)
        recall(nbd, context, offset, length, value);
    return status;
}

int nbd_ops_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out, struct imgtk_error *err)
{
    uint32_t state = 0;
    int status = tell(handle, NBD_ALLOCATION, offset, &length, &state, err);
    *out = (struct imgtk_range){ .length = length,
                                 .kind = state & LIBNBD_STATE_ZERO ? IMGTK_RANGE_ZERO : IMGTK_RANGE_DATA };
    return status;
}

int nbd_ops_depth(void *handle, uint64_t offset, uint64_t length, struct imgtk_depth *out, struct imgtk_error *err)
{
    uint32_t depth = 1;
    int status = tell(handle, NBD_DEPTH, offset, &length, &depth, err);
    *out = (struct imgtk_depth){ .length = length, .depth = depth };
    return status;
}
