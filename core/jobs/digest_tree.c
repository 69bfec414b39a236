#include "digest_tree.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"

#define MAX_HEIGHT 47u /* 2^63 bytes in blocks of 2^16 */

/* What a hash is of is part of what is hashed, so that no block can pass for a node. */
enum { PREFIX_BLOCK = 0, PREFIX_NODE = 1, PREFIX_ROOT = 2 };
static const char root_label[] = "imgtk-checksum-1";

/* The root of the subtree over 2^height blocks that begins with block index * 2^height. */
struct node {
    unsigned height;
    uint64_t index;
    uint8_t digest[IMGTK_DIGEST_MAX];
};

struct digest_tree {
    const struct imgtk_digest *digest;
    uint64_t size;     /* of the disk, bytes */
    unsigned height;   /* of the whole tree: the disk is taken to go on with zeroes up to 2^height blocks */
    uint8_t *zeroes;   /* one block of them */
    uint8_t zero[MAX_HEIGHT + 1][IMGTK_DIGEST_MAX]; /* the root of a subtree of zeroes, by height */
    pthread_mutex_t lock; /* of what follows; a leaf */
    struct node *nodes;   /* complete, their siblings are not */
    size_t count, room;
};

struct digest_hasher {
    struct digest_tree *tree;
    void *handle;
};

/* ---- Hashes --------------------------------------------------------------- */

static int hash_block(struct digest_hasher *hasher, const uint8_t *bytes, size_t length, uint8_t *out,
                      struct imgtk_error *err)
{
    static const uint8_t prefix = PREFIX_BLOCK;
    const struct imgtk_digest *digest = hasher->tree->digest;
    int status = digest->begin(hasher->handle, err);
    if (!status)
        status = digest->update(hasher->handle, &prefix, sizeof(prefix), err);
    if (!status)
        status = digest->update(hasher->handle, bytes, length, err);
    if (!status && length < DIGEST_BLOCK)
        status = digest->update(hasher->handle, hasher->tree->zeroes, DIGEST_BLOCK - length, err);
    return status ? status : digest->end(hasher->handle, out, err);
}

static int hash_pair(struct digest_hasher *hasher, const uint8_t *left, const uint8_t *right, uint8_t *out,
                     struct imgtk_error *err)
{
    const struct imgtk_digest *digest = hasher->tree->digest;
    uint8_t bytes[1 + 2 * IMGTK_DIGEST_MAX] = { PREFIX_NODE };
    memcpy(bytes + 1, left, digest->length);
    memcpy(bytes + 1 + digest->length, right, digest->length);
    int status = digest->begin(hasher->handle, err);
    if (!status)
        status = digest->update(hasher->handle, bytes, 1 + 2 * digest->length, err);
    return status ? status : digest->end(hasher->handle, out, err);
}

/* Makes `node` the parent of itself and `sibling`. */
static int join(struct digest_hasher *hasher, struct node *node, const struct node *sibling, struct imgtk_error *err)
{
    const struct node *left = node->index % 2 == 0 ? node : sibling;
    const struct node *right = left == node ? sibling : node;
    struct node parent = { .height = node->height + 1, .index = node->index / 2 };
    int status = hash_pair(hasher, left->digest, right->digest, parent.digest, err);
    if (!status)
        *node = parent;
    return status;
}

/* ---- The tree so far (under the lock) ------------------------------------- */

static struct node *find(const struct digest_tree *tree, unsigned height, uint64_t index)
{
    for (size_t i = 0; i < tree->count; i++)
        if (tree->nodes[i].height == height && tree->nodes[i].index == index)
            return &tree->nodes[i];
    return NULL;
}

static int keep(struct digest_tree *tree, const struct node *node, struct imgtk_error *err)
{
    if (tree->count == tree->room) {
        size_t room = tree->room ? 2 * tree->room : 64;
        struct node *nodes = realloc(tree->nodes, room * sizeof(*nodes));
        if (!nodes)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
        tree->nodes = nodes;
        tree->room = room;
    }
    tree->nodes[tree->count++] = *node;
    return 0;
}

static int add_locked(struct digest_hasher *hasher, struct node *node, struct imgtk_error *err)
{
    struct digest_tree *tree = hasher->tree;
    struct node *sibling;
    while ((sibling = find(tree, node->height, node->index ^ 1)) != NULL) {
        int status = join(hasher, node, sibling, err);
        if (status)
            return status;
        *sibling = tree->nodes[--tree->count];
    }
    return keep(tree, node, err);
}

static int add(struct digest_hasher *hasher, const struct node *nodes, size_t count, struct imgtk_error *err)
{
    int status = 0;
    pthread_mutex_lock(&hasher->tree->lock);
    for (size_t i = 0; !status && i < count; i++) {
        struct node node = nodes[i];
        status = add_locked(hasher, &node, err);
    }
    pthread_mutex_unlock(&hasher->tree->lock);
    return status;
}

/* ---- Runs ----------------------------------------------------------------- */

/* The largest subtree that begins with block `first` and has at most `count` blocks. */
static unsigned subtree_height(uint64_t first, uint64_t count)
{
    unsigned height = 0;
    while (height < MAX_HEIGHT && first % (UINT64_C(2) << height) == 0 && UINT64_C(2) << height <= count)
        height++;
    return height;
}

static int add_zeroes(struct digest_hasher *hasher, uint64_t first, uint64_t count, struct imgtk_error *err)
{
    struct node nodes[2 * (MAX_HEIGHT + 1)];
    size_t used = 0;
    while (count > 0) {
        unsigned height = subtree_height(first, count);
        struct node *node = &nodes[used++];
        *node = (struct node){ .height = height, .index = first >> height };
        memcpy(node->digest, hasher->tree->zero[height], hasher->tree->digest->length);
        first += UINT64_C(1) << height;
        count -= UINT64_C(1) << height;
    }
    return add(hasher, nodes, used, err);
}

int digest_hasher_zero(struct digest_hasher *hasher, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    return add_zeroes(hasher, offset / DIGEST_BLOCK, imgtk_div_round_up(length, DIGEST_BLOCK), err);
}

/* Appends the node of the block that follows a run of subtrees; those that it completes are joined. */
static int push(struct digest_hasher *hasher, struct node *nodes, size_t *count, struct node *node,
                struct imgtk_error *err)
{
    int status = 0;
    while (!status && *count > 0 && nodes[*count - 1].height == node->height && node->index % 2 == 1)
        status = join(hasher, node, &nodes[--*count], err);
    nodes[(*count)++] = *node;
    return status;
}

/* Zeroes that are stored as data cost a look at them, and no hash. */
static int hash_data_block(struct digest_hasher *hasher, const uint8_t *bytes, size_t length, uint8_t *out,
                           struct imgtk_error *err)
{
    if (!imgtk_is_zero(bytes, length))
        return hash_block(hasher, bytes, length, out, err);
    memcpy(out, hasher->tree->zero[0], hasher->tree->digest->length);
    return 0;
}

int digest_hasher_data(struct digest_hasher *hasher, const uint8_t *bytes, uint64_t offset, uint64_t length,
                       struct imgtk_error *err)
{
    struct node nodes[2 * (MAX_HEIGHT + 1)];
    size_t count = 0;
    int status = 0;
    for (uint64_t at = 0; !status && at < length; at += DIGEST_BLOCK) {
        struct node node = { .index = (offset + at) / DIGEST_BLOCK };
        size_t block = (size_t)imgtk_min_u64(DIGEST_BLOCK, length - at);
        status = hash_data_block(hasher, bytes + at, block, node.digest, err);
        if (!status)
            status = push(hasher, nodes, &count, &node, err);
    }
    return status ? status : add(hasher, nodes, count, err);
}

/* ---- The root ------------------------------------------------------------- */

static int hash_root(struct digest_hasher *hasher, uint8_t *out, struct imgtk_error *err)
{
    const struct digest_tree *tree = hasher->tree;
    const struct imgtk_digest *digest = tree->digest;
    uint8_t head[1 + sizeof(root_label) - 1 + 8] = { PREFIX_ROOT };
    if (tree->count != 1 || tree->nodes[0].height != tree->height)
        return imgtk_fail(err, IMGTK_EINVAL, "the digest was asked for before all of the disk was read");
    memcpy(head + 1, root_label, sizeof(root_label) - 1);
    imgtk_put_le64(head + sizeof(head) - 8, tree->size);
    int status = digest->begin(hasher->handle, err);
    if (!status)
        status = digest->update(hasher->handle, head, sizeof(head), err);
    if (!status)
        status = digest->update(hasher->handle, tree->nodes[0].digest, digest->length, err);
    return status ? status : digest->end(hasher->handle, out, err);
}

int digest_tree_end(struct digest_tree *tree, uint8_t out[IMGTK_DIGEST_MAX], struct imgtk_error *err)
{
    struct digest_hasher *hasher = NULL;
    int status = digest_hasher_new(tree, &hasher, err);
    if (!status)
        status = hash_root(hasher, out, err);
    digest_hasher_free(hasher);
    return status;
}

/* ---- Life ----------------------------------------------------------------- */

static unsigned tree_height(uint64_t blocks)
{
    unsigned height = 0;
    while (UINT64_C(1) << height < blocks)
        height++;
    return height;
}

/* The hashes of zeroes, and what lies behind the disk's end. */
static int prepare(struct digest_tree *tree, struct digest_hasher *hasher, struct imgtk_error *err)
{
    uint64_t blocks = imgtk_div_round_up(tree->size, DIGEST_BLOCK);
    tree->height = tree_height(blocks);
    if (tree->height > MAX_HEIGHT)
        return imgtk_fail(err, IMGTK_ELIMIT, "a disk of %llu bytes is larger than any can be",
                          (unsigned long long)tree->size);
    int status = hash_block(hasher, tree->zeroes, DIGEST_BLOCK, tree->zero[0], err);
    for (unsigned i = 0; !status && i < tree->height; i++)
        status = hash_pair(hasher, tree->zero[i], tree->zero[i], tree->zero[i + 1], err);
    return status ? status : add_zeroes(hasher, blocks, (UINT64_C(1) << tree->height) - blocks, err);
}

int digest_tree_new(const struct imgtk_digest *digest, uint64_t size, struct digest_tree **out,
                    struct imgtk_error *err)
{
    struct digest_tree *tree = calloc(1, sizeof(*tree));
    struct digest_hasher *hasher = NULL;
    if (!tree)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    tree->digest = digest;
    tree->size = size;
    tree->zeroes = calloc(1, DIGEST_BLOCK);
    pthread_mutex_init(&tree->lock, NULL);
    int status = tree->zeroes ? digest_hasher_new(tree, &hasher, err) : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (!status)
        status = prepare(tree, hasher, err);
    digest_hasher_free(hasher);
    if (status) {
        digest_tree_free(tree);
        return status;
    }
    *out = tree;
    return 0;
}

void digest_tree_free(struct digest_tree *tree)
{
    if (!tree)
        return;
    pthread_mutex_destroy(&tree->lock);
    free(tree->zeroes);
    free(tree->nodes);
    free(tree);
}

int digest_hasher_new(struct digest_tree *tree, struct digest_hasher **out, struct imgtk_error *err)
{
    struct digest_hasher *hasher = calloc(1, sizeof(*hasher));
    if (!hasher)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    hasher->tree = tree;
    int status = tree->digest->open(&hasher->handle, err);
    if (status) {
        free(hasher);
        return status;
    }
    *out = hasher;
    return 0;
}

void digest_hasher_free(struct digest_hasher *hasher)
{
    if (!hasher)
        return;
    hasher->tree->digest->close(hasher->handle);
    free(hasher);
}
