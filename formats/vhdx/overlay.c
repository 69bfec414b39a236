#include <stdlib.h>

#include "vhdx.h"

struct patches {
    struct vhdx_patch *at;
    size_t count;
};

static void push(struct patches *list, struct vhdx_patch patch)
{
    list->at[list->count++] = patch;
}

/*
 * Two disjoint ascending lists into one, `over` winning. Only a zero patch can
 * lose a part of itself: data patches are whole sectors, as are all the bounds.
 */
static void merge(struct patches under, struct patches over, struct patches *out)
{
    size_t i = 0, j = 0;
    while (i < under.count || j < over.count) {
        struct vhdx_patch *below = under.at + i, *above = over.at + j;
        if (j == over.count || (i < under.count && below->end <= above->start)) {
            push(out, *below);
            i++;
        } else if (i == under.count || above->end <= below->start) {
            push(out, *above);
            j++;
        } else {
            if (below->start < above->start) {
                struct vhdx_patch part = *below;
                part.end = above->start;
                push(out, part);
            }
            if (below->end > above->end)
                below->start = above->end;
            else
                i++;
            if (i < under.count && under.at[i].start >= above->end) {
                push(out, *above);
                j++;
            }
        }
    }
}

/* `out` and `scratch` hold 2 * count each: disjoint ranges between 2 * count bounds. */
static size_t flatten(const struct vhdx_patch *patches, size_t count, struct vhdx_patch *out,
                      struct vhdx_patch *scratch)
{
    if (count == 1) {
        *out = *patches;
        return 1;
    }
    size_t half = count / 2;
    struct patches under = { scratch, flatten(patches, half, scratch, out) };
    struct patches over = { scratch + 2 * half,
                            flatten(patches + half, count - half, scratch + 2 * half, out + 2 * half) };
    struct patches merged = { out, 0 };
    merge(under, over, &merged);
    return merged.count;
}

int vhdx_overlay_build(struct vhdx_patch *patches, size_t count, struct vhdx_overlay *out, struct imgtk_error *err)
{
    *out = (struct vhdx_overlay){ 0 };
    if (count == 0) {
        free(patches);
        return 0;
    }
    struct vhdx_patch *result = calloc(2 * count, sizeof(*result));
    struct vhdx_patch *scratch = calloc(2 * count, sizeof(*scratch));
    if (result && scratch)
        *out = (struct vhdx_overlay){ result, flatten(patches, count, result, scratch) };
    else
        free(result);
    free(scratch);
    free(patches);
    return out->patches ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu log descriptors", count);
}

void vhdx_overlay_free(struct vhdx_overlay *overlay)
{
    free(overlay->patches);
    *overlay = (struct vhdx_overlay){ 0 };
}

const struct vhdx_patch *vhdx_overlay_find(const struct vhdx_overlay *overlay, uint64_t offset)
{
    size_t low = 0, high = overlay->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (overlay->patches[middle].end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low < overlay->count ? overlay->patches + low : NULL;
}
