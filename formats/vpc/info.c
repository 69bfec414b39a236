#include <stdio.h>
#include <stdlib.h>

#include "vpc.h"

static const char *type_name(enum vpc_type type)
{
    return type == VPC_FIXED ? "fixed" : type == VPC_DYNAMIC ? "dynamic" : "differencing";
}

/* Four bytes of a tag as text: without its padding, anything unprintable as '?'. */
static void tell_tag(struct imgtk_info *info, const char *key, const char tag[4])
{
    char text[5] = { 0 };
    size_t length = 4;
    while (length > 0 && (tag[length - 1] == 0 || tag[length - 1] == ' '))
        length--;
    for (size_t i = 0; i < length; i++)
        text[i] = tag[i] >= 0x20 && tag[i] < 0x7f ? tag[i] : '?';
    imgtk_info_text(info, key, text);
}

static void tell_geometry(struct imgtk_info *info, const struct vpc_geometry *geometry)
{
    imgtk_info_begin_object(info, "geometry");
    imgtk_info_number(info, "cylinders", geometry->cylinders);
    imgtk_info_number(info, "heads", geometry->heads);
    imgtk_info_number(info, "sectors-per-track", geometry->sectors);
    imgtk_info_end(info);
}

static void tell_creator(struct imgtk_info *info, const struct vpc_footer *footer)
{
    char version[16];
    unsigned major = footer->creator_version >> 16, minor = footer->creator_version & 0xffff;
    snprintf(version, sizeof(version), "%u.%u", major, minor);
    tell_tag(info, "creator", footer->creator);
    imgtk_info_text(info, "creator-version", version);
    tell_tag(info, "creator-os", footer->creator_os);
    imgtk_info_number(info, "timestamp", (uint64_t)footer->timestamp + VPC_EPOCH);
}

static void tell_parent(const struct vpc *vpc, struct imgtk_info *info)
{
    char *name = vpc_utf16_to_utf8(vpc->header.parent_name, VPC_PARENT_NAME_SIZE, true);
    imgtk_info_text(info, "parent-uuid", vpc->parent_uuid);
    if (name && *name)
        imgtk_info_text(info, "parent-name", name);
    free(name);
}

int vpc_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    (void)err;
    const struct vpc *vpc = handle;
    struct imgtk_info *info = out->specific;
    char uuid[UUID_TEXT_SIZE];
    uuid_to_text(vpc->footer.uuid, uuid);
    imgtk_info_text(info, "type", type_name(vpc->footer.type));
    imgtk_info_text(info, "uuid", uuid);
    if (vpc->footer.type != VPC_FIXED) {
        out->cluster_size = vpc->header.block_size;
        imgtk_info_number(info, "block-size", vpc->header.block_size);
    }
    if (vpc->footer.type == VPC_DIFFERENCING)
        tell_parent(vpc, info);
    tell_creator(info, &vpc->footer);
    imgtk_info_number(info, "current-size", vpc->footer.current_size);
    tell_geometry(info, &vpc->footer.geometry);
    if (vpc->recovered)
        imgtk_info_bool(info, "recovered-footer", true);
    return 0;
}
