/* The plain digest of a disk's bytes: each depends on all before it, so one thread hashes while others read. */
#include <stdlib.h>

#include "checksum.h"
#include "imgtk/bytes.h"
#include "readahead.h"

#define ZEROES (1u << 20)

struct flat {
    struct checksum_pass *pass;
    const struct imgtk_digest *digest;
    void *handle;
    uint8_t *zeroes; /* ZEROES bytes */
};

static int read_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    const struct flat *flat = context;
    struct source_walk *walk = NULL;
    int status = source_walk_new(flat->pass->source, false, &walk, err);
    if (!status)
        status = source_walk_read(walk, piece->ours, piece->length, piece->offset, err);
    source_walk_free(walk);
    return status;
}

static int take_piece(void *context, const struct readahead_piece *piece, struct imgtk_error *err)
{
    struct flat *flat = context;
    int status = flat->digest->update(flat->handle, piece->ours, piece->length, err);
    return status ? status : checksum_advance(flat->pass, piece->length, piece->length, err);
}

static int take_zeroes(struct flat *flat, uint64_t length, struct imgtk_error *err)
{
    int status = 0;
    while (!status && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, ZEROES);
        status = flat->digest->update(flat->handle, flat->zeroes, piece, err);
        if (!status)
            status = checksum_advance(flat->pass, piece, 0, err);
        length -= piece;
    }
    return status;
}

static int take_all(struct flat *flat, struct readahead *ahead, struct source_walk *walk, struct imgtk_error *err)
{
    uint64_t end = flat->pass->length;
    int status = 0;
    for (uint64_t offset = 0; !status && offset < end;) {
        struct imgtk_chain_extent found;
        size_t image;
        status = source_walk_next(walk, offset, end - offset, &found, &image, err);
        if (status)
            return status;
        if (found.extent.kind == IMGTK_EXTENT_DATA)
            status = readahead_add(ahead, offset, found.extent.length, err);
        else if ((status = readahead_drain(ahead, err)) == 0)
            status = take_zeroes(flat, found.extent.length, err);
        offset += found.extent.length;
    }
    return status ? status : readahead_drain(ahead, err);
}

static int run(struct flat *flat, uint8_t *out, struct imgtk_error *err)
{
    struct readahead *ahead = NULL;
    struct source_walk *walk = NULL;
    struct readahead_options options = { .read = read_piece, .take = take_piece, .context = flat,
                                         .workers = flat->pass->in_order ? 0 : flat->pass->workers };
    int status = source_walk_new(flat->pass->source, true, &walk, err);
    if (!status)
        status = readahead_new(&options, &ahead, err);
    if (!status)
        status = flat->digest->begin(flat->handle, err);
    if (!status)
        status = take_all(flat, ahead, walk, err);
    if (!status)
        status = flat->digest->end(flat->handle, out, err);
    readahead_free(ahead);
    source_walk_free(walk);
    return status;
}

int checksum_flat(struct checksum_pass *pass, const struct imgtk_digest *digest, uint8_t *out, struct imgtk_error *err)
{
    struct flat flat = { .pass = pass, .digest = digest, .zeroes = calloc(1, ZEROES) };
    if (!flat.zeroes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = digest->open(&flat.handle, err);
    if (!status) {
        status = run(&flat, out, err);
        digest->close(flat.handle);
    }
    free(flat.zeroes);
    return status;
}
