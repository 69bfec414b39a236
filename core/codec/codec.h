/*
 * Compression for format modules: DEFLATE (libdeflate where it was built with
 * it, else zlib) and Zstandard. A static library that the modules which need
 * it link (qcow2, vmdk), so that no other part of imgtk depends on the codecs.
 *
 * A codec object holds one thread's scratch memory; it is not thread-safe. A
 * pool hands them out.
 */
#ifndef IMGTK_CODEC_H
#define IMGTK_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "imgtk/error.h"

enum imgtk_codec_kind {
    IMGTK_CODEC_DEFLATE, /* raw, RFC 1951 */
    IMGTK_CODEC_ZLIB,    /* with header and Adler-32, RFC 1950 */
    IMGTK_CODEC_ZSTD     /* frames, RFC 8878 */
};

/* The range of levels that a kind takes. */
struct imgtk_codec_levels { unsigned min, max; };
struct imgtk_codec_levels imgtk_codec_levels(enum imgtk_codec_kind kind);

struct imgtk_codec_pool;
/* level 0: what suits clusters best; for some kinds between two levels. Decompression ignores it. */
int imgtk_codec_pool_new(enum imgtk_codec_kind kind, unsigned level, struct imgtk_codec_pool **out,
                         struct imgtk_error *err);
void imgtk_codec_pool_free(struct imgtk_codec_pool *pool);

struct imgtk_codec;
/* Thread-safe; NULL when out of memory. */
struct imgtk_codec *imgtk_codec_take(struct imgtk_codec_pool *pool);
void imgtk_codec_give(struct imgtk_codec_pool *pool, struct imgtk_codec *codec);

/*
 * Fills exactly out_length bytes from a stream that begins at `in`; bytes of
 * `in` after the stream's end are ignored (formats pad them). Anything else,
 * a shorter stream too, is IMGTK_ECORRUPT.
 */
int imgtk_codec_decompress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length,
                           struct imgtk_error *err);
/* Returns the compressed length, or 0 when it does not fit into out_length (or memory for the compressor runs out). */
size_t imgtk_codec_compress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length);

#endif
