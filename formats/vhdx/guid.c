#include <string.h>

#include "vhdx.h"

struct vhdx_guid vhdx_guid_at(const void *bytes)
{
    struct vhdx_guid guid;
    memcpy(guid.bytes, bytes, sizeof(guid.bytes));
    return guid;
}

bool vhdx_guid_equal(const struct vhdx_guid *guid, const void *bytes)
{
    return memcmp(guid->bytes, bytes, sizeof(guid->bytes)) == 0;
}

bool vhdx_guid_is_zero(const struct vhdx_guid *guid)
{
    return uuid_is_null(guid->bytes);
}

void vhdx_guid_format(const struct vhdx_guid *guid, char out[UUID_TEXT_SIZE])
{
    uint8_t uuid[UUID_SIZE];
    uuid_swap_fields(guid->bytes, uuid);
    uuid_to_text(uuid, out);
}

int vhdx_guid_parse(const char *text, struct vhdx_guid *out, struct imgtk_error *err)
{
    char bare[UUID_TEXT_SIZE];
    uint8_t uuid[UUID_SIZE];
    size_t length = strlen(text);
    if (length == UUID_TEXT_SIZE + 1 && text[0] == '{' && text[length - 1] == '}') {
        memcpy(bare, text + 1, UUID_TEXT_SIZE - 1);
        bare[UUID_TEXT_SIZE - 1] = '\0';
        text = bare;
    }
    int status = uuid_from_text(text, uuid, err);
    if (!status)
        uuid_swap_fields(uuid, out->bytes);
    return status;
}

int vhdx_guid_random(struct vhdx_guid *out, struct imgtk_error *err)
{
    uint8_t uuid[UUID_SIZE];
    int status = uuid_random(uuid, err);
    if (!status)
        uuid_swap_fields(uuid, out->bytes);
    return status;
}
