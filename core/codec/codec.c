#include "kinds.h"

#include <pthread.h>
#include <stdlib.h>

struct imgtk_codec_pool {
    const struct codec_ops *ops;
    unsigned level;
    pthread_mutex_t lock; /* guards idle */
    struct imgtk_codec *idle;
};

static const struct codec_ops *ops_of(enum imgtk_codec_kind kind)
{
    switch (kind) {
    case IMGTK_CODEC_DEFLATE:
        return &codec_deflate_ops;
    case IMGTK_CODEC_ZLIB:
        return &codec_zlib_ops;
    case IMGTK_CODEC_ZSTD:
        return &codec_zstd_ops;
    }
    return NULL;
}

struct imgtk_codec_levels imgtk_codec_levels(enum imgtk_codec_kind kind)
{
    const struct codec_ops *ops = ops_of(kind);
    return ops != NULL ? ops->levels : (struct imgtk_codec_levels){ 0, 0 };
}

int imgtk_codec_pool_new(enum imgtk_codec_kind kind, unsigned level, struct imgtk_codec_pool **out,
                         struct imgtk_error *err)
{
    const struct codec_ops *ops = ops_of(kind);
    if (ops == NULL) {
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "unknown compression method %d", (int)kind);
    }
    if (level != 0 && (level < ops->levels.min || level > ops->levels.max)) {
        return imgtk_fail(err, IMGTK_EINVAL, "compression level %u is not within %u to %u", level, ops->levels.min,
                          ops->levels.max);
    }
    struct imgtk_codec_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL || pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a codec pool");
    }
    pool->ops = ops;
    pool->level = level;
    *out = pool;
    return 0;
}

static void codec_free(struct imgtk_codec *codec)
{
    codec->ops->free_contexts(codec);
    free(codec);
}

void imgtk_codec_pool_free(struct imgtk_codec_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    while (pool->idle != NULL) {
        struct imgtk_codec *codec = pool->idle;
        pool->idle = codec->next;
        codec_free(codec);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static struct imgtk_codec *take_idle(struct imgtk_codec_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct imgtk_codec *codec = pool->idle;
    if (codec != NULL) {
        pool->idle = codec->next;
    }
    pthread_mutex_unlock(&pool->lock);
    return codec;
}

struct imgtk_codec *imgtk_codec_take(struct imgtk_codec_pool *pool)
{
    struct imgtk_codec *codec = take_idle(pool);
    if (codec == NULL) {
        codec = calloc(1, sizeof(*codec));
        if (codec == NULL) {
            return NULL;
        }
        codec->ops = pool->ops;
        codec->level = pool->level;
    }
    codec->next = NULL;
    return codec;
}

void imgtk_codec_give(struct imgtk_codec_pool *pool, struct imgtk_codec *codec)
{
    if (codec == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    codec->next = pool->idle;
    pool->idle = codec;
    pthread_mutex_unlock(&pool->lock);
}

int imgtk_codec_decompress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length,
                           struct imgtk_error *err)
{
    return codec->ops->decompress(codec, in, in_length, out, out_length, err);
}

size_t imgtk_codec_compress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length)
{
    return codec->ops->compress(codec, in, in_length, out, out_length);
}
