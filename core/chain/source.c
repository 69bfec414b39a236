#include "source.h"

#include <stdlib.h>

#include "image_internal.h"
#include "imgtk/bytes.h"

struct source_walk {
    const struct source *source;
    struct imgtk_chain_extent last; /* offsets of the whole; length 0: none */
    size_t last_image;
    struct imgtk_walk *walks[]; /* one per image */
};

int source_init(struct source *source, struct imgtk_image *const *images, size_t count, struct imgtk_error *err)
{
    *source = (struct source){ .images = images, .count = count };
    for (size_t i = 0; i < count; i++) {
        uint64_t size = imgtk_image_size(images[i]);
        if (size > INT64_MAX - source->size)
            return imgtk_fail(err, IMGTK_ELIMIT, "the sources together exceed the largest disk");
        source->size += size;
    }
    return 0;
}

bool source_in_order(const struct source *source)
{
    for (size_t i = 0; i < source->count; i++)
        if (imgtk_storage_flags(imgtk_image_layer(source->images[i], 0)->file) & IMGTK_STORAGE_SEQUENTIAL)
            return true;
    return false;
}

int source_walk_new(const struct source *source, bool ask_storage, struct source_walk **out, struct imgtk_error *err)
{
    struct source_walk *walk = calloc(1, sizeof(*walk) + source->count * sizeof(walk->walks[0]));
    if (!walk)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    walk->source = source;
    for (size_t i = 0; i < source->count; i++) {
        int status = imgtk_walk_new(source->images[i], &walk->walks[i], err);
        if (status) {
            source_walk_free(walk);
            return status;
        }
        imgtk_walk_ask_storage(walk->walks[i], ask_storage);
    }
    *out = walk;
    return 0;
}

void source_walk_free(struct source_walk *walk)
{
    if (!walk)
        return;
    for (size_t i = 0; i < walk->source->count; i++)
        imgtk_walk_free(walk->walks[i]);
    free(walk);
}

/* The image that holds offset, which becomes an offset of that image. */
static size_t find_image(const struct source *source, uint64_t *offset)
{
    size_t i = 0;
    while (*offset >= imgtk_image_size(source->images[i]))
        *offset -= imgtk_image_size(source->images[i++]);
    return i;
}

static int find_extent(struct source_walk *walk, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    uint64_t local = offset;
    size_t image = find_image(walk->source, &local);
    uint64_t left = imgtk_image_size(walk->source->images[image]) - local;
    int status = imgtk_walk_merged(walk->walks[image], local, imgtk_min_u64(length, left), &walk->last, err);
    if (status)
        walk->last.extent.length = 0;
    walk->last.start = offset;
    walk->last_image = image;
    return status;
}

/* Who goes through a long extent in steps would have the rest of it merged anew for each of them. */
int source_walk_next(struct source_walk *walk, uint64_t offset, uint64_t length, struct imgtk_chain_extent *out,
                     size_t *image, struct imgtk_error *err)
{
    bool known = offset >= walk->last.start && offset - walk->last.start < walk->last.extent.length;
    int status = known ? 0 : find_extent(walk, offset, length, err);
    *out = walk->last;
    *image = walk->last_image;
    extent_advance(&out->extent, offset - out->start);
    out->extent.length = imgtk_min_u64(out->extent.length, length);
    out->start = offset;
    return status;
}

int source_walk_read(struct source_walk *walk, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    uint8_t *at = buf;
    while (length > 0) {
        uint64_t local = offset;
        size_t image = find_image(walk->source, &local);
        uint64_t left = imgtk_image_size(walk->source->images[image]) - local;
        size_t piece = (size_t)imgtk_min_u64(length, left);
        int status = imgtk_walk_read(walk->walks[image], at, piece, local, err);
        if (status)
            return status;
        at += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}
