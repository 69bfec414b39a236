#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

struct qcow2_scratch_pool {
    pthread_mutex_t lock; /* a leaf, over `idle` alone */
    struct qcow2_scratch *idle;
    struct imgtk_codec_pool *codecs;
    size_t cluster_size;
};

int qcow2_scratch_pool_new(enum imgtk_codec_kind kind, size_t cluster_size, struct qcow2_scratch_pool **out,
                           struct imgtk_error *err)
{
    struct qcow2_scratch_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for decompression");
    int status = imgtk_codec_pool_new(kind, 0, &pool->codecs, err);
    if (status != 0) {
        free(pool);
        return status;
    }
    pool->cluster_size = cluster_size;
    pthread_mutex_init(&pool->lock, NULL);
    *out = pool;
    return 0;
}

static void free_scratch(struct qcow2_scratch_pool *pool, struct qcow2_scratch *scratch)
{
    imgtk_codec_give(pool->codecs, scratch->codec);
    free(scratch->input);
    free(scratch->cluster);
    free(scratch);
}

void qcow2_scratch_pool_free(struct qcow2_scratch_pool *pool)
{
    if (!pool)
        return;
    while (pool->idle) {
        struct qcow2_scratch *scratch = pool->idle;
        pool->idle = scratch->next;
        free_scratch(pool, scratch);
    }
    imgtk_codec_pool_free(pool->codecs);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static struct qcow2_scratch *new_scratch(struct qcow2_scratch_pool *pool)
{
    struct qcow2_scratch *scratch = calloc(1, sizeof(*scratch));
    if (!scratch)
        return NULL;
    scratch->codec = imgtk_codec_take(pool->codecs);
    if (!scratch->codec) {
        free(scratch);
        return NULL;
    }
    return scratch;
}

struct qcow2_scratch *qcow2_scratch_take(struct qcow2_scratch_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct qcow2_scratch *scratch = pool->idle;
    if (scratch)
        pool->idle = scratch->next;
    pthread_mutex_unlock(&pool->lock);
    return scratch ? scratch : new_scratch(pool);
}

void qcow2_scratch_give(struct qcow2_scratch_pool *pool, struct qcow2_scratch *scratch)
{
    pthread_mutex_lock(&pool->lock);
    scratch->next = pool->idle;
    pool->idle = scratch;
    pthread_mutex_unlock(&pool->lock);
}

bool qcow2_scratch_input(struct qcow2_scratch *scratch, size_t size)
{
    if (size <= scratch->input_size)
        return true;
    free(scratch->input); /* its bytes are not needed any more: no realloc, which would copy them */
    scratch->input = malloc(size);
    scratch->input_size = scratch->input ? size : 0;
    return scratch->input != NULL;
}

bool qcow2_scratch_cluster(const struct qcow2_scratch_pool *pool, struct qcow2_scratch *scratch)
{
    if (!scratch->cluster)
        scratch->cluster = malloc(pool->cluster_size);
    return scratch->cluster != NULL;
}
