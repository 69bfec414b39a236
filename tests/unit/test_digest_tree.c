/* The tree against the plainest way to compute it, with a digest that is quick and no good for anything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "imgtk/bytes.h"
#include "jobs/digest_tree.h"

enum { BLOCK = DIGEST_BLOCK, LENGTH = 8 };

/* ---- FNV-1a as a digest ----------------------------------------------------- */

static unsigned blocks_hashed; /* digests of more bytes than a node has */

struct fnv {
    uint64_t hash;
    size_t length;
};

static int fnv_open(void **handle, struct imgtk_error *err)
{
    (void)err;
    *handle = calloc(1, sizeof(struct fnv));
    assert_non_null(*handle);
    return 0;
}

static int fnv_begin(void *handle, struct imgtk_error *err)
{
    (void)err;
    *(struct fnv *)handle = (struct fnv){ .hash = 0xcbf29ce484222325u };
    return 0;
}

static int fnv_update(void *handle, const void *bytes, size_t length, struct imgtk_error *err)
{
    (void)err;
    struct fnv *fnv = handle;
    for (size_t i = 0; i < length; i++)
        fnv->hash = (fnv->hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    fnv->length += length;
    return 0;
}

static int fnv_end(void *handle, uint8_t *out, struct imgtk_error *err)
{
    (void)err;
    const struct fnv *fnv = handle;
    blocks_hashed += fnv->length > BLOCK;
    imgtk_put_le64(out, fnv->hash);
    return 0;
}

static const struct imgtk_digest fnv_digest = {
    .struct_size = sizeof(fnv_digest), .name = "fnv", .length = LENGTH, .open = fnv_open, .close = free,
    .begin = fnv_begin, .update = fnv_update, .end = fnv_end,
};

/* ---- The definition --------------------------------------------------------- */

static void hash(uint8_t prefix, const void *a, size_t a_length, const void *b, size_t b_length, uint8_t *out)
{
    struct fnv fnv;
    fnv_begin(&fnv, NULL);
    fnv_update(&fnv, &prefix, 1, NULL);
    fnv_update(&fnv, a, a_length, NULL);
    fnv_update(&fnv, b, b_length, NULL);
    imgtk_put_le64(out, fnv.hash);
}

static void plain_subtree(const uint8_t *disk, size_t blocks, uint8_t *out)
{
    uint8_t halves[2 * LENGTH];
    if (blocks == 1) {
        hash(0, disk, BLOCK, "", 0, out);
        return;
    }
    plain_subtree(disk, blocks / 2, halves);
    plain_subtree(disk + blocks / 2 * BLOCK, blocks / 2, halves + LENGTH);
    hash(1, halves, LENGTH, halves + LENGTH, LENGTH, out);
}

static void plain(const uint8_t *disk, size_t size, uint8_t *out)
{
    size_t blocks = 1;
    while (blocks * BLOCK < size)
        blocks *= 2;
    uint8_t *padded = calloc(blocks, BLOCK), top[LENGTH], head[16 + 8] = "imgtk-checksum-1";
    assert_non_null(padded);
    memcpy(padded, disk, size);
    plain_subtree(padded, blocks, top);
    imgtk_put_le64(head + 16, size);
    hash(2, head, sizeof(head), top, LENGTH, out);
    free(padded);
}

/* ---- Tests ------------------------------------------------------------------ */

static uint64_t random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

struct piece {
    uint64_t offset, length;
};

/* Tells of the disk in pieces of one to four blocks, in random order, by two hashers. */
static void told_at_random(const uint8_t *disk, size_t size, uint64_t seed, uint8_t *out)
{
    struct digest_tree *tree;
    struct digest_hasher *hashers[2];
    struct piece pieces[64];
    size_t count = 0;
    for (uint64_t offset = 0, length; offset < size; offset += length) {
        length = imgtk_min_u64(size - offset, (1 + random_next(&seed) % 4) * BLOCK);
        pieces[count++] = (struct piece){ offset, length };
    }
    assert_int_equal(digest_tree_new(&fnv_digest, size, &tree, NULL), 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(digest_hasher_new(tree, &hashers[i], NULL), 0);
    while (count > 0) {
        size_t pick = (size_t)(random_next(&seed) % count);
        struct piece piece = pieces[pick];
        pieces[pick] = pieces[--count];
        assert_int_equal(digest_hasher_data(hashers[count % 2], disk + piece.offset, piece.offset, piece.length, NULL),
                         0);
    }
    assert_int_equal(digest_tree_end(tree, out, NULL), 0);
    for (size_t i = 0; i < 2; i++)
        digest_hasher_free(hashers[i]);
    digest_tree_free(tree);
}

static void any_order_gives_the_defined_digest(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 512, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 512, 5 * BLOCK, 13 * BLOCK + 7 };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *disk = malloc(sizes[i]), expected[LENGTH], found[IMGTK_DIGEST_MAX];
        assert_non_null(disk);
        for (size_t at = 0; at < sizes[i]; at++)
            disk[at] = (uint8_t)(at * 7 + at / BLOCK);
        plain(disk, sizes[i], expected);
        for (uint64_t seed = 1; seed < 6; seed++) {
            told_at_random(disk, sizes[i], seed, found);
            assert_memory_equal(found, expected, LENGTH);
        }
        free(disk);
    }
}

/* blocks: 'd' data, '0' a block of zeroes told as data, ' ' a hole */
static void told_in_order(const char *blocks, size_t size, const uint8_t *disk, uint8_t *out)
{
    struct digest_tree *tree;
    struct digest_hasher *hasher;
    assert_int_equal(digest_tree_new(&fnv_digest, size, &tree, NULL), 0);
    assert_int_equal(digest_hasher_new(tree, &hasher, NULL), 0);
    for (uint64_t offset = 0; offset < size;) {
        size_t run = blocks[offset / BLOCK] == ' ' ? strspn(blocks + offset / BLOCK, " ") : 1;
        uint64_t length = imgtk_min_u64(size - offset, run * BLOCK);
        int status = blocks[offset / BLOCK] == ' ' ? digest_hasher_zero(hasher, offset, length, NULL)
                                                   : digest_hasher_data(hasher, disk + offset, offset, length, NULL);
        assert_int_equal(status, 0);
        offset += length;
    }
    assert_int_equal(digest_tree_end(tree, out, NULL), 0);
    digest_hasher_free(hasher);
    digest_tree_free(tree);
}

static void holes_and_stored_zeroes_are_the_same_and_not_hashed(void **state)
{
    (void)state;
    static const char *const layouts[] = { "d     d", "d0 0 0d", "d00000d", "       ", "0000000" };
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        size_t size = 7 * BLOCK - 100;
        uint8_t *disk = calloc(7, BLOCK), expected[LENGTH], found[IMGTK_DIGEST_MAX];
        unsigned data = 0;
        assert_non_null(disk);
        for (size_t block = 0; block < 7; block++) {
            data += layouts[i][block] == 'd';
            memset(disk + block * BLOCK, layouts[i][block] == 'd' ? 'x' : 0, BLOCK);
        }
        plain(disk, size, expected);
        blocks_hashed = 0;
        told_in_order(layouts[i], size, disk, found);
        assert_memory_equal(found, expected, LENGTH);
        assert_int_equal(blocks_hashed, data + 1); /* and once a block of zeroes, for its hash */
        free(disk);
    }
}

static void the_size_counts(void **state)
{
    (void)state;
    uint8_t one[IMGTK_DIGEST_MAX], other[IMGTK_DIGEST_MAX];
    told_in_order(" ", 512, NULL, one);
    told_in_order(" ", 1024, NULL, other);
    assert_memory_not_equal(one, other, LENGTH);
}

static void the_largest_disk_is_a_few_hashes(void **state)
{
    (void)state;
    struct digest_tree *tree;
    struct digest_hasher *hasher;
    uint8_t out[IMGTK_DIGEST_MAX];
    assert_int_equal(digest_tree_new(&fnv_digest, INT64_MAX, &tree, NULL), 0);
    assert_int_equal(digest_hasher_new(tree, &hasher, NULL), 0);
    assert_int_equal(digest_hasher_zero(hasher, 0, INT64_MAX, NULL), 0);
    assert_int_equal(digest_tree_end(tree, out, NULL), 0);
    digest_hasher_free(hasher);
    digest_tree_free(tree);
}

static void a_root_before_the_end_is_refused(void **state)
{
    (void)state;
    struct digest_tree *tree;
    struct digest_hasher *hasher;
    uint8_t out[IMGTK_DIGEST_MAX];
    assert_int_equal(digest_tree_new(&fnv_digest, 4 * BLOCK, &tree, NULL), 0);
    assert_int_equal(digest_hasher_new(tree, &hasher, NULL), 0);
    assert_int_equal(digest_hasher_zero(hasher, BLOCK, 3 * BLOCK, NULL), 0);
    assert_int_equal(digest_tree_end(tree, out, NULL), IMGTK_EINVAL);
    digest_hasher_free(hasher);
    digest_tree_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_gives_the_defined_digest),
        cmocka_unit_test(holes_and_stored_zeroes_are_the_same_and_not_hashed),
        cmocka_unit_test(the_size_counts),
        cmocka_unit_test(the_largest_disk_is_a_few_hashes),
        cmocka_unit_test(a_root_before_the_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
