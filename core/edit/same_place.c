#include "same_place.h"

#include <sys/stat.h>

#include "storage/storage.h"

static bool is_same_file(struct same_place *places, const struct imgtk_storage *a, const struct imgtk_storage *b)
{
    struct stat st[2];
    if (places->files[0] == a && places->files[1] == b)
        return places->files_same;
    int fds[2] = { a->ops.fd(a->handle), b->ops.fd(b->handle) };
    places->files[0] = a;
    places->files[1] = b;
    places->files_same = fds[0] >= 0 && fds[1] >= 0 && fstat(fds[0], &st[0]) == 0 && fstat(fds[1], &st[1]) == 0 &&
                         st[0].st_dev == st[1].st_dev && st[0].st_ino == st[1].st_ino;
    return places->files_same;
}

/* As below two overlays of one backing file. */
bool same_place(struct same_place *places, struct imgtk_image *const images[2],
                const struct imgtk_chain_extent extents[2])
{
    const struct imgtk_chain_extent *a = &extents[0], *b = &extents[1];
    if (a->extent.kind != b->extent.kind)
        return false;
    if (a->extent.flags & b->extent.flags & IMGTK_EXTENT_PLAIN)
        return a->extent.host_offset == b->extent.host_offset && is_same_file(places, a->extent.file, b->extent.file);
    if ((a->extent.flags | b->extent.flags) & IMGTK_EXTENT_PLAIN)
        return false;
    /* Only the top layers can show another state of their file: a snapshot. */
    if (a->depth == 0 || b->depth == 0)
        return false;
    const struct imgtk_layer *layers[2] = { imgtk_image_layer(images[0], a->depth),
                                            imgtk_image_layer(images[1], b->depth) };
    return layers[0]->driver == layers[1]->driver && is_same_file(places, layers[0]->file, layers[1]->file);
}
