/* The codecs, with zlib and libzstd themselves as the oracles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "codec/codec.h"

enum { PLAIN_SIZE = 65536, PACKED_SIZE = 2 * PLAIN_SIZE, RAW_BITS = -15, WRAPPED_BITS = 15, QEMU_BITS = -12 };

struct buffers {
    uint8_t plain[PLAIN_SIZE], packed[PACKED_SIZE], result[PLAIN_SIZE + 1];
};

/* Words, repeats farther back than 4 KiB, and noise: literals, near and far matches. */
static void fill(uint8_t *plain, size_t length, unsigned seed)
{
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525u + 1013904223u;
        if (i >= 20000 && (i / 1000) % 3 != 0) {
            plain[i] = plain[i - 20000];
        } else {
            plain[i] = (i / 500) % 2 ? (uint8_t)"a disk image "[i % 13] : (uint8_t)(state >> 24);
        }
    }
}

static struct imgtk_codec_pool *pool_of(enum imgtk_codec_kind kind, unsigned level)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_codec_pool *pool = NULL;
    assert_int_equal(imgtk_codec_pool_new(kind, level, &pool, &err), 0);
    assert_non_null(pool);
    return pool;
}

static size_t oracle_deflate(const uint8_t *plain, size_t length, uint8_t *packed, int bits)
{
    z_stream stream = { 0 };
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (z_const Bytef *)plain;
    stream.avail_in = (uInt)length;
    stream.next_out = packed;
    stream.avail_out = PACKED_SIZE;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t result = PACKED_SIZE - stream.avail_out;
    deflateEnd(&stream);
    return result;
}

static void oracle_inflate(const uint8_t *packed, size_t length, uint8_t *plain, size_t plain_length, int bits)
{
    z_stream stream = { 0 };
    assert_int_equal(inflateInit2(&stream, bits), Z_OK);
    stream.next_in = (z_const Bytef *)packed;
    stream.avail_in = (uInt)length;
    stream.next_out = plain;
    stream.avail_out = (uInt)plain_length;
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(stream.avail_out, 0);
    inflateEnd(&stream);
}

/* Fails with ECORRUPT and a message, and the codec still works afterwards. */
static void refuses(struct imgtk_codec *codec, const void *in, size_t in_length, void *out, size_t out_length)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_codec_decompress(codec, in, in_length, out, out_length, &err), IMGTK_ECORRUPT);
    assert_int_equal(err.status, IMGTK_ECORRUPT);
    assert_true(err.message[0] != '\0');
}

static void accepts(struct imgtk_codec *codec, const struct buffers *b, size_t in_length, uint8_t *out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    memset(out, 0xee, PLAIN_SIZE + 1);
    if (imgtk_codec_decompress(codec, b->packed, in_length, out, PLAIN_SIZE, &err) != 0) {
        fail_msg("%s", err.message);
    }
    assert_memory_equal(out, b->plain, PLAIN_SIZE);
    assert_int_equal(out[PLAIN_SIZE], 0xee);
}

/* What every kind must do with `length` good bytes in b->packed. */
static void check_decompression(enum imgtk_codec_kind kind, struct buffers *b, size_t length)
{
    struct imgtk_codec_pool *pool = pool_of(kind, 0);
    struct imgtk_codec *codec = imgtk_codec_take(pool);
    assert_non_null(codec);
    accepts(codec, b, length, b->result);
    memset(b->packed + length, 0, 512);
    accepts(codec, b, length + 512, b->result);
    memset(b->packed + length, 0xa5, 512);
    accepts(codec, b, length + 512, b->result);
    refuses(codec, b->packed, length, b->result, PLAIN_SIZE + 1);
    refuses(codec, b->packed, length, b->result, PLAIN_SIZE - 1);
    refuses(codec, b->packed, length / 2, b->result, PLAIN_SIZE);
    refuses(codec, b->packed, 0, b->result, PLAIN_SIZE);
    memset(b->packed + length, 0xff, 64);
    refuses(codec, b->packed + length, 64, b->result, PLAIN_SIZE);
    accepts(codec, b, length, b->result);
    imgtk_codec_give(pool, codec);
    imgtk_codec_pool_free(pool);
}

static void reads_deflate(void **state)
{
    struct buffers *b = *state;
    check_decompression(IMGTK_CODEC_DEFLATE, b, oracle_deflate(b->plain, PLAIN_SIZE, b->packed, RAW_BITS));
}

static void reads_deflate_of_small_windows(void **state)
{
    struct buffers *b = *state;
    check_decompression(IMGTK_CODEC_DEFLATE, b, oracle_deflate(b->plain, PLAIN_SIZE, b->packed, QEMU_BITS));
}

static void reads_zlib(void **state)
{
    struct buffers *b = *state;
    size_t length = oracle_deflate(b->plain, PLAIN_SIZE, b->packed, WRAPPED_BITS);
    check_decompression(IMGTK_CODEC_ZLIB, b, length);
}

static void zlib_checksum_is_checked(void **state)
{
    struct buffers *b = *state;
    size_t length = oracle_deflate(b->plain, PLAIN_SIZE, b->packed, WRAPPED_BITS);
    struct imgtk_codec_pool *pool = pool_of(IMGTK_CODEC_ZLIB, 0);
    struct imgtk_codec *codec = imgtk_codec_take(pool);
    b->packed[length - 1] ^= 1;
    refuses(codec, b->packed, length, b->result, PLAIN_SIZE);
    imgtk_codec_give(pool, codec);
    imgtk_codec_pool_free(pool);
}

static void reads_zstd(void **state)
{
    struct buffers *b = *state;
    size_t length = ZSTD_compress(b->packed, PACKED_SIZE, b->plain, PLAIN_SIZE, 3);
    assert_false(ZSTD_isError(length));
    check_decompression(IMGTK_CODEC_ZSTD, b, length);
}

static void reads_concatenated_zstd_frames(void **state)
{
    struct buffers *b = *state;
    size_t first = ZSTD_compress(b->packed, PACKED_SIZE, b->plain, 1000, 3);
    size_t second = ZSTD_compress(b->packed + first, PACKED_SIZE - first, b->plain + 1000, PLAIN_SIZE - 1000, 3);
    assert_false(ZSTD_isError(first) || ZSTD_isError(second));
    check_decompression(IMGTK_CODEC_ZSTD, b, first + second);
}

/* A streamed frame records no content size and a window that is larger than the content. */
static void reads_streamed_zstd_frames(void **state)
{
    struct buffers *b = *state;
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27);
    ZSTD_inBuffer in = { b->plain, PLAIN_SIZE, 0 };
    ZSTD_outBuffer out = { b->packed, PACKED_SIZE, 0 };
    assert_false(ZSTD_isError(ZSTD_compressStream2(context, &out, &in, ZSTD_e_continue)));
    assert_int_equal(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(context);
    check_decompression(IMGTK_CODEC_ZSTD, b, out.pos);
}

/* A damaged stream may be refused or may give other bytes, but never touches what lies behind the output. */
static void survives_damage(void **state)
{
    struct buffers *b = *state;
    static const enum imgtk_codec_kind kinds[] = { IMGTK_CODEC_DEFLATE, IMGTK_CODEC_ZLIB, IMGTK_CODEC_ZSTD };
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct imgtk_codec_pool *pool = pool_of(kinds[k], 0);
        struct imgtk_codec *codec = imgtk_codec_take(pool);
        size_t length = imgtk_codec_compress(codec, b->plain, PLAIN_SIZE, b->packed, PACKED_SIZE);
        assert_true(length > 0);
        b->result[PLAIN_SIZE] = 0xee;
        for (size_t i = 0; i < 400; i++) {
            size_t at = i * 7919 % length;
            uint8_t before = b->packed[at];
            b->packed[at] = (uint8_t)(before ^ (1u << (i % 8)));
            struct imgtk_error err = IMGTK_ERROR_INIT;
            int rc = imgtk_codec_decompress(codec, b->packed, length, b->result, PLAIN_SIZE, &err);
            assert_true(rc == 0 || rc == IMGTK_ECORRUPT);
            b->packed[at] = before;
        }
        assert_int_equal(b->result[PLAIN_SIZE], 0xee);
        accepts(codec, b, length, b->result);
        imgtk_codec_give(pool, codec);
        imgtk_codec_pool_free(pool);
    }
}

static void check_compression(struct buffers *b, enum imgtk_codec_kind kind, unsigned level)
{
    struct imgtk_codec_pool *pool = pool_of(kind, level);
    struct imgtk_codec *codec = imgtk_codec_take(pool);
    for (size_t length = PLAIN_SIZE; length > 0; length /= 16) {
        size_t packed = imgtk_codec_compress(codec, b->plain, length, b->packed, PACKED_SIZE);
        assert_true(packed > 0);
        memset(b->result, 0xee, sizeof(b->result));
        if (kind == IMGTK_CODEC_ZSTD) {
            assert_int_equal(ZSTD_decompress(b->result, length, b->packed, packed), length);
        } else if (kind == IMGTK_CODEC_ZLIB) {
            oracle_inflate(b->packed, packed, b->result, length, WRAPPED_BITS);
        } else {
            /* As QEMU reads it: a window of 4 KiB, but the whole output in one call. */
            oracle_inflate(b->packed, packed, b->result, length, QEMU_BITS);
        }
        assert_memory_equal(b->result, b->plain, length);
        assert_int_equal(imgtk_codec_compress(codec, b->plain, length, b->packed, packed / 2), 0);
    }
    imgtk_codec_give(pool, codec);
    imgtk_codec_pool_free(pool);
}

static void writes_every_level(void **state)
{
    static const enum imgtk_codec_kind kinds[] = { IMGTK_CODEC_DEFLATE, IMGTK_CODEC_ZLIB, IMGTK_CODEC_ZSTD };
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct imgtk_codec_levels levels = imgtk_codec_levels(kinds[k]);
        assert_true(levels.min >= 1 && levels.min < levels.max);
        for (unsigned level = levels.min; level <= levels.max; level++) {
            check_compression(*state, kinds[k], level);
        }
        check_compression(*state, kinds[k], 0);
    }
}

/* Whatever the codec has compressed before. */
static void check_same_output(struct buffers *b, enum imgtk_codec_kind kind, const uint8_t *plain, const uint8_t *before)
{
    uint8_t *again = test_malloc(PACKED_SIZE);
    struct imgtk_codec_pool *pool = pool_of(kind, 0);
    struct imgtk_codec *one = imgtk_codec_take(pool), *two = imgtk_codec_take(pool);
    size_t length = imgtk_codec_compress(one, plain, PLAIN_SIZE, b->packed, PACKED_SIZE);
    imgtk_codec_compress(two, before, 5000, again, PACKED_SIZE);
    imgtk_codec_compress(two, before, PLAIN_SIZE, again, PACKED_SIZE);
    assert_int_equal(imgtk_codec_compress(two, plain, PLAIN_SIZE, again, PACKED_SIZE), length);
    assert_memory_equal(b->packed, again, length);
    imgtk_codec_give(pool, one);
    imgtk_codec_give(pool, two);
    imgtk_codec_pool_free(pool);
    test_free(again);
}

/* Half of `plain` is noise, so Zstandard takes it for code, which text is not. */
static void same_input_same_output(void **state)
{
    static const enum imgtk_codec_kind kinds[] = { IMGTK_CODEC_DEFLATE, IMGTK_CODEC_ZLIB, IMGTK_CODEC_ZSTD };
    static uint8_t text[PLAIN_SIZE];
    struct buffers *b = *state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)"the words of a text come again "[(i * i >> 7) % 31];
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        check_same_output(b, kinds[k], b->plain, text);
        check_same_output(b, kinds[k], text, b->plain);
    }
}

static void refuses_levels_out_of_range(void **state)
{
    (void)state;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_codec_pool *pool = NULL;
    unsigned above = imgtk_codec_levels(IMGTK_CODEC_ZSTD).max + 1;
    assert_int_equal(imgtk_codec_pool_new(IMGTK_CODEC_ZSTD, above, &pool, &err), IMGTK_EINVAL);
    assert_non_null(strstr(err.message, "20"));
    assert_int_equal(imgtk_codec_pool_new((enum imgtk_codec_kind)77, 0, &pool, &err), IMGTK_EUNSUPPORTED);
    assert_null(pool);
}

static void given_codecs_are_taken_again(void **state)
{
    (void)state;
    struct imgtk_codec_pool *pool = pool_of(IMGTK_CODEC_DEFLATE, 0);
    struct imgtk_codec *first = imgtk_codec_take(pool);
    struct imgtk_codec *second = imgtk_codec_take(pool);
    assert_ptr_not_equal(first, second);
    imgtk_codec_give(pool, first);
    assert_ptr_equal(imgtk_codec_take(pool), first);
    imgtk_codec_give(pool, first);
    imgtk_codec_give(pool, second);
    imgtk_codec_give(pool, NULL);
    imgtk_codec_pool_free(pool);
    imgtk_codec_pool_free(NULL);
}

struct shared {
    struct imgtk_codec_pool *pool;
    const struct buffers *buffers;
    size_t length;
};

static void *use_pool(void *context)
{
    const struct shared *shared = context;
    uint8_t *out = malloc(PLAIN_SIZE);
    int bad = out == NULL;
    for (int i = 0; i < 50 && !bad; i++) {
        struct imgtk_codec *codec = imgtk_codec_take(shared->pool);
        bad = codec == NULL ||
              imgtk_codec_decompress(codec, shared->buffers->packed, shared->length, out, PLAIN_SIZE, NULL) != 0 ||
              memcmp(out, shared->buffers->plain, PLAIN_SIZE) != 0;
        imgtk_codec_give(shared->pool, codec);
    }
    free(out);
    return bad ? context : NULL;
}

static void pool_serves_threads(void **state)
{
    struct buffers *b = *state;
    struct shared shared = { pool_of(IMGTK_CODEC_DEFLATE, 0), b,
                             oracle_deflate(b->plain, PLAIN_SIZE, b->packed, RAW_BITS) };
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use_pool, &shared), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *bad;
        assert_int_equal(pthread_join(threads[i], &bad), 0);
        assert_null(bad);
    }
    imgtk_codec_pool_free(shared.pool);
}

static int make_buffers(void **state)
{
    struct buffers *b = calloc(1, sizeof(*b));
    *state = b;
    if (b != NULL) {
        fill(b->plain, PLAIN_SIZE, 1);
    }
    return b == NULL;
}

static int free_buffers(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_deflate),
        cmocka_unit_test(reads_deflate_of_small_windows),
        cmocka_unit_test(reads_zlib),
        cmocka_unit_test(zlib_checksum_is_checked),
        cmocka_unit_test(reads_zstd),
        cmocka_unit_test(reads_concatenated_zstd_frames),
        cmocka_unit_test(reads_streamed_zstd_frames),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(writes_every_level),
        cmocka_unit_test(same_input_same_output),
        cmocka_unit_test(refuses_levels_out_of_range),
        cmocka_unit_test(given_codecs_are_taken_again),
        cmocka_unit_test(pool_serves_threads),
    };
    return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
