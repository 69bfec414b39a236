/*
 * Zstandard, one whole frame at a time: the output buffer is the window, so
 * that a frame which claims a window of 128 MiB makes nobody allocate one.
 */
#include "kinds.h"

#include <stdbool.h>
#include <stdint.h>
#include <zstd.h>
#include <zstd_errors.h>

/* The level that the zstd command calls the last ordinary one; those above it want far more memory. */
enum { LEVEL_MAX = 19 };

enum { LEVEL_DEFAULT = 3 }; /* the zstd command's and QEMU's */

/*
 * In machine code matches are short and few: a search that looks up each place once, for short matches, finds about as
 * much there as level 3, which looks up two, in four fifths of the time. Text would grow by 3 to 5 %. What tells them
 * apart is how many of the byte values occur. Measured on 64 KiB clusters of a Debian system.
 */
enum { DENSE_MIN = 32 << 10, DENSE_MAX = 128 << 10, DENSE_HASH_LOG = 15, DENSE_MIN_MATCH = 4 };
enum { SAMPLES = 64, SAMPLE_LENGTH = 16, VALUES = 256, DENSE_FROM = 134 };

static int fail(struct imgtk_error *err, size_t result, size_t out_length)
{
    switch (ZSTD_getErrorCode(result)) {
    case ZSTD_error_memory_allocation:
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a Zstandard decompressor");
    case ZSTD_error_dstSize_tooSmall:
        return imgtk_fail(err, IMGTK_ECORRUPT, "the Zstandard frames hold more than %zu bytes", out_length);
    default:
        return imgtk_fail(err, IMGTK_ECORRUPT, "the Zstandard frame is damaged or cut short: %s",
                          ZSTD_getErrorName(result));
    }
}

/* Decodes the frame at `in` and tells how long it was (*used) and how much it held (*done). */
static int decompress_frame(ZSTD_DCtx *context, const char *in, size_t in_length, char *out, size_t out_length,
                            size_t *used, size_t *done, struct imgtk_error *err)
{
    *used = ZSTD_findFrameCompressedSize(in, in_length);
    if (ZSTD_isError(*used)) {
        return fail(err, *used, out_length);
    }
    *done = ZSTD_decompressDCtx(context, out, out_length, in, *used);
    return ZSTD_isError(*done) ? fail(err, *done, out_length) : 0;
}

static int decompress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length,
                      struct imgtk_error *err)
{
    if (codec->decompressor == NULL) {
        codec->decompressor = ZSTD_createDCtx();
        if (codec->decompressor == NULL) {
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a Zstandard decompressor");
        }
    }
    /* Some writers end a frame early and begin another; what follows the last byte that is due is padding. */
    size_t in_done = 0, out_done = 0;
    do {
        size_t used = 0, done = 0;
        int rc = decompress_frame(codec->decompressor, (const char *)in + in_done, in_length - in_done,
                                  (char *)out + out_done, out_length - out_done, &used, &done, err);
        if (rc != 0) {
            return rc;
        }
        in_done += used;
        out_done += done;
    } while (out_done < out_length && in_done < in_length);
    if (out_done < out_length) {
        return imgtk_fail(err, IMGTK_ECORRUPT, "the Zstandard frames hold %zu bytes, not %zu", out_done, out_length);
    }
    return 0;
}

static bool set(ZSTD_CCtx *context, ZSTD_cParameter name, int value)
{
    return !ZSTD_isError(ZSTD_CCtx_setParameter(context, name, value));
}

/* Whether samples from all over `in` have as many values as machine code has, or more. */
static bool is_dense(const uint8_t *in, size_t in_length)
{
    uint8_t seen[VALUES] = { 0 };
    uint32_t values = 0;
    for (size_t sample = 0; sample < SAMPLES; sample++)
        for (size_t i = 0; i < SAMPLE_LENGTH; i++)
            seen[in[sample * (in_length / SAMPLES) + i]] = 1;
    for (size_t i = 0; i < VALUES; i++)
        values += seen[i];
    return values >= DENSE_FROM;
}

/* Parameters stay with a context until they are set again; 0 is the level's own. */
static bool set_up(const struct imgtk_codec *codec, ZSTD_CCtx *context, const void *in, size_t in_length)
{
    bool fits = codec->level == 0 && in_length >= DENSE_MIN && in_length <= DENSE_MAX;
    bool dense = fits && is_dense(in, in_length);
    return set(context, ZSTD_c_compressionLevel, codec->level ? (int)codec->level : LEVEL_DEFAULT) &&
           set(context, ZSTD_c_strategy, dense ? ZSTD_fast : 0) &&
           set(context, ZSTD_c_hashLog, dense ? DENSE_HASH_LOG : 0) &&
           set(context, ZSTD_c_minMatch, dense ? DENSE_MIN_MATCH : 0);
}

static size_t compress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length)
{
    if (codec->compressor == NULL)
        codec->compressor = ZSTD_createCCtx();
    if (codec->compressor == NULL || !set_up(codec, codec->compressor, in, in_length))
        return 0;
    size_t length = ZSTD_compress2(codec->compressor, out, out_length, in, in_length);
    return ZSTD_isError(length) ? 0 : length;
}

static void free_contexts(struct imgtk_codec *codec)
{
    ZSTD_freeCCtx(codec->compressor);
    ZSTD_freeDCtx(codec->decompressor);
}

const struct codec_ops codec_zstd_ops = {
    .levels = { .min = 1, .max = LEVEL_MAX },
    .decompress = decompress,
    .compress = compress,
    .free_contexts = free_contexts,
};
