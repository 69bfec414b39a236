/* DEFLATE by zlib, for builds without libdeflate. */
#include "kinds.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

enum { PRESET = 6 }; /* zlib's own */

/* What zlib calls a window of 32 KiB: negative without the zlib header and checksum. */
enum { RAW_BITS = -15, WRAPPED_BITS = 15, MEMORY_LEVEL = 8 };

static z_stream *decompressor_new(int window_bits)
{
    z_stream *stream = calloc(1, sizeof(*stream));
    if (stream != NULL && inflateInit2(stream, window_bits) != Z_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static z_stream *compressor_new(int window_bits, unsigned level)
{
    z_stream *stream = calloc(1, sizeof(*stream));
    if (stream != NULL &&
        deflateInit2(stream, (int)level, Z_DEFLATED, window_bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static void set_buffers(z_stream *stream, const void *in, size_t in_length, void *out, size_t out_length)
{
    stream->next_in = (z_const Bytef *)in;
    stream->avail_in = (uInt)in_length;
    stream->next_out = out;
    stream->avail_out = (uInt)out_length;
}

static int fail(struct imgtk_error *err, const z_stream *stream, int result, size_t out_length)
{
    if (result == Z_MEM_ERROR) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a DEFLATE decompressor");
    }
    if (result == Z_STREAM_END) {
        return imgtk_fail(err, IMGTK_ECORRUPT, "the DEFLATE stream holds less than %zu bytes", out_length);
    }
    if (result == Z_BUF_ERROR && stream->avail_out == 0 && stream->avail_in != 0) {
        return imgtk_fail(err, IMGTK_ECORRUPT, "the DEFLATE stream holds more than %zu bytes", out_length);
    }
    return imgtk_fail(err, IMGTK_ECORRUPT, "the DEFLATE stream is damaged or cut short");
}

static int decompress(struct imgtk_codec *codec, int window_bits, const void *in, size_t in_length, void *out,
                      size_t out_length, struct imgtk_error *err)
{
    if (in_length > UINT_MAX || out_length > UINT_MAX) {
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a DEFLATE stream of %zu bytes is above zlib's limit of %u",
                          in_length > out_length ? in_length : out_length, UINT_MAX);
    }
    if (codec->decompressor == NULL) {
        codec->decompressor = decompressor_new(window_bits);
    } else {
        inflateReset(codec->decompressor);
    }
    z_stream *stream = codec->decompressor;
    if (stream == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a DEFLATE decompressor");
    }
    set_buffers(stream, in, in_length, out, out_length);
    int result = inflate(stream, Z_FINISH);
    return result == Z_STREAM_END && stream->avail_out == 0 ? 0 : fail(err, stream, result, out_length);
}

static size_t compress_stream(struct imgtk_codec *codec, int window_bits, const void *in, size_t in_length, void *out,
                              size_t out_length)
{
    if (in_length > UINT_MAX || out_length > UINT_MAX) {
        return 0;
    }
    if (codec->compressor == NULL) {
        codec->compressor = compressor_new(window_bits, codec->level ? codec->level : PRESET);
    } else {
        deflateReset(codec->compressor);
    }
    z_stream *stream = codec->compressor;
    if (stream == NULL) {
        return 0;
    }
    set_buffers(stream, in, in_length, out, out_length);
    return deflate(stream, Z_FINISH) == Z_STREAM_END ? out_length - stream->avail_out : 0;
}

static int raw_decompress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length,
                          struct imgtk_error *err)
{
    return decompress(codec, RAW_BITS, in, in_length, out, out_length, err);
}

static size_t raw_compress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length)
{
    return compress_stream(codec, RAW_BITS, in, in_length, out, out_length);
}

static int wrapped_decompress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out,
                              size_t out_length, struct imgtk_error *err)
{
    return decompress(codec, WRAPPED_BITS, in, in_length, out, out_length, err);
}

static size_t wrapped_compress(struct imgtk_codec *codec, const void *in, size_t in_length, void *out,
                               size_t out_length)
{
    return compress_stream(codec, WRAPPED_BITS, in, in_length, out, out_length);
}

static void free_contexts(struct imgtk_codec *codec)
{
    if (codec->compressor != NULL) {
        deflateEnd(codec->compressor);
        free(codec->compressor);
    }
    if (codec->decompressor != NULL) {
        inflateEnd(codec->decompressor);
        free(codec->decompressor);
    }
}

const struct codec_ops codec_deflate_ops = {
    .levels = { .min = 1, .max = 9 },
    .decompress = raw_decompress,
    .compress = raw_compress,
    .free_contexts = free_contexts,
};

const struct codec_ops codec_zlib_ops = {
    .levels = { .min = 1, .max = 9 },
    .decompress = wrapped_decompress,
    .compress = wrapped_compress,
    .free_contexts = free_contexts,
};
