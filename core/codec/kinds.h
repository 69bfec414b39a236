/* What one compression method supplies. Internal to the codec library. */
#ifndef IMGTK_CODEC_KINDS_H
#define IMGTK_CODEC_KINDS_H

#include "codec.h"

/* One thread's contexts; each is made when it is first needed. */
struct imgtk_codec {
    const struct codec_ops *ops;
    unsigned level; /* 0: not asked for */
    void *compressor, *decompressor; /* of the method's own type; NULL until used */
    struct imgtk_codec *next;        /* in the pool's list of idle codecs */
};

/* The contracts of decompress and compress are those of codec.h; free_contexts releases what they made. */
struct codec_ops {
    struct imgtk_codec_levels levels;
    int (*decompress)(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length,
                      struct imgtk_error *err);
    size_t (*compress)(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length);
    void (*free_contexts)(struct imgtk_codec *codec);
};

/* Defined by deflate_libdeflate.c or deflate_zlib.c, whichever is built. */
extern const struct codec_ops codec_deflate_ops;
extern const struct codec_ops codec_zlib_ops;

extern const struct codec_ops codec_zstd_ops;

#endif
