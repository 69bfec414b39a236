/* What `info` tells. */
#include "vmdk.h"

#define MAX_TABLES_LOOKED_AT 4096u /* of an image, for damage; check looks at all of them */

static void describe_extent(struct imgtk_info *info, const struct vmdk_extent *extent)
{
    imgtk_info_begin_object(info, NULL);
    if (extent->sparse.compressed)
        imgtk_info_bool(info, "compressed", true);
    imgtk_info_number(info, "virtual-size", extent->length);
    imgtk_info_text(info, "filename", extent->file ? imgtk_storage_name(extent->file) : extent->name);
    if (extent->sparse.grain)
        imgtk_info_number(info, "cluster-size", extent->sparse.grain);
    imgtk_info_text(info, "format", extent->type_text);
    imgtk_info_end(info);
}

/* The grain size that all sparse extents share, else 0. */
static uint64_t common_grain(const struct vmdk_image *image)
{
    uint64_t grain = 0;
    for (size_t i = 0; i < image->extent_count; i++) {
        uint64_t other = image->extents[i].sparse.grain;
        if (other == 0)
            continue;
        if (grain != 0 && grain != other)
            return 0;
        grain = other;
    }
    return grain;
}

static bool is_unclean(const struct vmdk_image *image)
{
    for (size_t i = 0; i < image->extent_count; i++)
        if (image->extents[i].sparse.unclean)
            return true;
    return false;
}

/* Whether a grain table of the extent is damaged and its redundant copy is not; looks at *left tables at most. */
static bool needs_redundant_copy(struct vmdk_image *image, struct vmdk_extent *extent, uint64_t *left)
{
    struct vmdk_cursor cursor = { .image = image, .extent = extent };
    uint64_t before = atomic_load(&image->repaired_pieces), value = 0, run = 0;
    for (uint64_t i = 0; i < extent->sparse.gd_entries && *left > 0; i++) {
        if (extent->gd[i] == 0)
            continue;
        (*left)--;
        if (vmdk_cursor_get(&cursor, i * extent->sparse.gtes_per_gt, &value, &run, NULL))
            continue; /* damaged beyond repair: reading says so where it matters */
    }
    vmdk_cursor_end(&cursor);
    return extent->gd_redundant || atomic_load(&image->repaired_pieces) != before;
}

static bool uses_redundant_copies(struct vmdk_image *image)
{
    uint64_t left = MAX_TABLES_LOOKED_AT;
    bool used = false;
    for (size_t i = 0; i < image->extent_count; i++) {
        struct vmdk_extent *extent = &image->extents[i];
        if (extent->gd_redundant)
            used = true;
        else if (extent->sparse.rgd_offset && extent->gd)
            used = needs_redundant_copy(image, extent, &left) || used;
    }
    return used || atomic_load(&image->repaired_pieces) != 0;
}

int vmdk_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    struct vmdk_image *image = handle;
    (void)err;
    out->cluster_size = common_grain(image);
    out->dirty = is_unclean(image);
    out->compressed = image->extents[0].sparse.compressed;
    imgtk_info_number(out->specific, "cid", image->descriptor.cid);
    imgtk_info_number(out->specific, "parent-cid", image->descriptor.parent_cid);
    imgtk_info_text(out->specific, "create-type", image->descriptor.create_type);
    imgtk_info_begin_list(out->specific, "extents");
    for (size_t i = 0; i < image->extent_count; i++)
        describe_extent(out->specific, &image->extents[i]);
    imgtk_info_end(out->specific);
    if (uses_redundant_copies(image))
        imgtk_info_bool(out->specific, "redundant-tables-used", true);
    return 0;
}
