#include "vhdx.h"

static const char *type_of(const struct vhdx_metadata *metadata)
{
    return metadata->has_parent ? "differencing" : metadata->leave_allocated ? "fixed" : "dynamic";
}

static void add_guid(struct imgtk_info *info, const char *key, const struct vhdx_guid *guid)
{
    char text[UUID_TEXT_SIZE];
    vhdx_guid_format(guid, text);
    imgtk_info_text(info, key, text);
}

static void add_path(struct imgtk_info *info, const char *key, const char *path)
{
    if (path)
        imgtk_info_text(info, key, path);
}

static void add_parent(struct imgtk_info *info, const struct vhdx_parent *parent)
{
    imgtk_info_begin_object(info, "parent");
    imgtk_info_text(info, "data-write-guid", parent->linkage);
    add_path(info, "relative-path", parent->relative_path);
    add_path(info, "volume-path", parent->volume_path);
    add_path(info, "absolute-path", parent->absolute_path);
    imgtk_info_end(info);
}

int vhdx_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    (void)err;
    const struct vhdx_image *image = handle;
    const struct vhdx_metadata *metadata = &image->metadata;
    struct imgtk_info *info = out->specific;
    out->cluster_size = metadata->block_size;
    out->dirty = image->replayed;
    imgtk_info_text(info, "type", type_of(metadata));
    imgtk_info_number(info, "block-size", metadata->block_size);
    imgtk_info_number(info, "logical-sector-size", metadata->logical_sector);
    imgtk_info_number(info, "physical-sector-size", metadata->physical_sector);
    add_guid(info, "disk-id", &metadata->disk_id);
    add_guid(info, "data-write-guid", &image->header.header.data_write);
    add_guid(info, "file-write-guid", &image->header.header.file_write);
    imgtk_info_text(info, "creator", image->creator);
    imgtk_info_text(info, "log", image->replayed ? "replayed" : "clean");
    if (image->header.damaged)
        imgtk_info_number(info, "damaged-header", image->header.damaged);
    if (image->regions.damaged)
        imgtk_info_number(info, "damaged-region-table", image->regions.damaged);
    if (metadata->has_parent)
        add_parent(info, &image->parent);
    return 0;
}
