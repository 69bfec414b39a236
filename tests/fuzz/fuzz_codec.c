/* Compressed clusters of every kind; and what is compressed must come back. */
#include <string.h>

#include "codec/codec.h"
#include "fuzz.h"

static const enum imgtk_codec_kind kinds[] = { IMGTK_CODEC_DEFLATE, IMGTK_CODEC_ZLIB, IMGTK_CODEC_ZSTD };
static struct imgtk_codec_pool *pools[3];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        FUZZ_REQUIRE(imgtk_codec_pool_new(kinds[i], 1, &pools[i], &err) == 0);
    return 0;
}

static void come_back(struct imgtk_codec *codec, const uint8_t *data, size_t size)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    size_t room = size + 1024;
    uint8_t *packed = malloc(room), *plain = malloc(size + 1);
    FUZZ_REQUIRE(packed && plain);
    size_t length = imgtk_codec_compress(codec, data, size, packed, room);
    FUZZ_REQUIRE(length > 0);
    FUZZ_REQUIRE(imgtk_codec_decompress(codec, packed, length, plain, size, &err) == 0);
    FUZZ_REQUIRE(memcmp(plain, data, size) == 0);
    free(packed);
    free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    size_t kind = fuzz_take(&input, 1) % 3;
    size_t out_length = 1 + fuzz_take(&input, 2);
    size_t in_length = input.size;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_codec *codec = imgtk_codec_take(pools[kind]);
    uint8_t *in = fuzz_take_copy(&input, in_length), *out = malloc(out_length);
    FUZZ_REQUIRE(codec && out);
    fuzz_judge(imgtk_codec_decompress(codec, in, in_length, out, out_length, &err), &err);
    if (in_length > 0)
        come_back(codec, in, in_length);
    free(in);
    free(out);
    imgtk_codec_give(pools[kind], codec);
    return 0;
}
