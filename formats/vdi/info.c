#include <stdio.h>

#include "vdi.h"

static const char *type_name(enum vdi_type type)
{
    return type == VDI_STATIC ? "static" : type == VDI_DYNAMIC ? "dynamic" : "differencing";
}

static void tell_uuid(struct imgtk_info *info, const char *key, const uint8_t uuid[UUID_SIZE])
{
    char text[UUID_TEXT_SIZE];
    uuid_to_text(uuid, text);
    imgtk_info_text(info, key, text);
}

int vdi_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    (void)err;
    const struct vdi_header *header = &((const struct vdi *)handle)->header;
    char version[16];
    out->cluster_size = header->block_size;
    snprintf(version, sizeof(version), "%u.%u", VDI_VERSION_MAJOR(header->version), VDI_VERSION_MINOR(header->version));
    imgtk_info_text(out->specific, "type", type_name(header->type));
    imgtk_info_text(out->specific, "version", version);
    tell_uuid(out->specific, "uuid", header->uuid);
    tell_uuid(out->specific, "modification-uuid", header->uuid_modify);
    if (!uuid_is_null(header->uuid_link)) {
        tell_uuid(out->specific, "parent-uuid", header->uuid_link);
        tell_uuid(out->specific, "parent-modification-uuid", header->uuid_parent_modify);
    }
    imgtk_info_number(out->specific, "block-size", header->block_size);
    imgtk_info_number(out->specific, "blocks", header->blocks);
    imgtk_info_number(out->specific, "blocks-allocated", header->blocks_allocated);
    return 0;
}
