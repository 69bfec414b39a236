#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

#define CREATOR "imgtk " IMGTK_VERSION

static void put_guid(uint8_t *at, const struct vhdx_guid *guid)
{
    memcpy(at, guid->bytes, sizeof(guid->bytes));
}

void vhdx_seal(uint8_t *structure, size_t length)
{
    imgtk_put_le32(structure + VHDX_CHECKSUM, vhdx_checksum(structure, length));
}

static void build_identifier(uint8_t *at)
{
    memcpy(at, VHDX_FILE_SIGNATURE, 8);
    for (size_t i = 0; i < sizeof(CREATOR) - 1; i++)
        imgtk_put_le16(at + VHDX_FILE_CREATOR + 2 * i, (uint16_t)CREATOR[i]);
}

static void build_header(uint8_t *at, uint64_t sequence, const struct vhdx_layout *layout,
                         const struct vhdx_identity *identity)
{
    imgtk_put_le32(at + VHDX_SIGNATURE, VHDX_HEADER_SIGNATURE);
    imgtk_put_le64(at + VHDX_HEADER_SEQUENCE, sequence);
    put_guid(at + VHDX_HEADER_FILE_WRITE_GUID, &identity->file_write);
    put_guid(at + VHDX_HEADER_DATA_WRITE_GUID, &identity->data_write);
    imgtk_put_le16(at + VHDX_HEADER_LOG_VERSION, VHDX_LOG_VERSION);
    imgtk_put_le16(at + VHDX_HEADER_VERSION, VHDX_VERSION);
    imgtk_put_le32(at + VHDX_HEADER_LOG_LENGTH, (uint32_t)layout->log_length);
    imgtk_put_le64(at + VHDX_HEADER_LOG_OFFSET, layout->log_offset);
    vhdx_seal(at, VHDX_HEADER_SIZE);
}

static void put_region(uint8_t *entry, const char *guid, uint64_t offset, uint64_t length)
{
    memcpy(entry, guid, sizeof(struct vhdx_guid));
    imgtk_put_le64(entry + VHDX_REGION_ENTRY_OFFSET, offset);
    imgtk_put_le32(entry + VHDX_REGION_ENTRY_LENGTH, (uint32_t)length);
    imgtk_put_le32(entry + VHDX_REGION_ENTRY_REQUIRED, 1);
}

static void build_regions(uint8_t *at, const struct vhdx_layout *layout)
{
    uint8_t *entries = at + VHDX_REGION_ENTRIES;
    imgtk_put_le32(at + VHDX_SIGNATURE, VHDX_REGION_SIGNATURE);
    imgtk_put_le32(at + VHDX_REGION_COUNT, 2);
    put_region(entries, VHDX_GUID_BAT, layout->bat_offset, layout->bat_length);
    put_region(entries + VHDX_REGION_ENTRY_SIZE, VHDX_GUID_METADATA, layout->metadata_offset, VHDX_METADATA_LENGTH);
    vhdx_seal(at, VHDX_REGION_TABLE_SIZE);
}

void vhdx_build_section(uint8_t *section, const struct vhdx_layout *layout, const struct vhdx_identity *identity)
{
    build_identifier(section);
    build_header(section + VHDX_HEADER_1_OFFSET, 1, layout, identity);
    build_header(section + VHDX_HEADER_2_OFFSET, 2, layout, identity);
    build_regions(section + VHDX_REGION_1_OFFSET, layout);
    build_regions(section + VHDX_REGION_2_OFFSET, layout);
}

/* One item behind the other, after the table. */
struct items {
    uint8_t *metadata;
    unsigned count;
    uint32_t next;
};

static uint8_t *add_item(struct items *items, const char *guid, uint32_t length, uint32_t flags)
{
    uint8_t *entry = items->metadata + VHDX_METADATA_ENTRIES + (size_t)items->count * VHDX_METADATA_ENTRY_SIZE;
    uint8_t *value = items->metadata + items->next;
    memcpy(entry, guid, sizeof(struct vhdx_guid));
    imgtk_put_le32(entry + VHDX_METADATA_ENTRY_OFFSET, items->next);
    imgtk_put_le32(entry + VHDX_METADATA_ENTRY_LENGTH, length);
    imgtk_put_le32(entry + VHDX_METADATA_ENTRY_FLAGS, flags | VHDX_METADATA_IS_REQUIRED);
    items->count++;
    items->next += length;
    return value;
}

void vhdx_build_metadata(uint8_t *metadata, const struct vhdx_layout *layout, const struct vhdx_identity *identity)
{
    struct items items = { metadata, 0, VHDX_METADATA_TABLE_SIZE };
    uint8_t *parameters = add_item(&items, VHDX_GUID_FILE_PARAMETERS, VHDX_FILE_PARAMETERS_SIZE, 0);
    imgtk_put_le32(parameters, (uint32_t)layout->block_size);
    imgtk_put_le32(parameters + 4, layout->fixed ? VHDX_FILE_LEAVE_ALLOCATED : 0);
    imgtk_put_le64(add_item(&items, VHDX_GUID_DISK_SIZE, 8, VHDX_METADATA_IS_VIRTUAL_DISK), layout->size);
    put_guid(add_item(&items, VHDX_GUID_DISK_ID, 16, VHDX_METADATA_IS_VIRTUAL_DISK), &identity->disk);
    imgtk_put_le32(add_item(&items, VHDX_GUID_LOGICAL_SECTOR, 4, VHDX_METADATA_IS_VIRTUAL_DISK), VHDX_LOGICAL_SECTOR);
    imgtk_put_le32(add_item(&items, VHDX_GUID_PHYSICAL_SECTOR, 4, VHDX_METADATA_IS_VIRTUAL_DISK),
                   VHDX_PHYSICAL_SECTOR);
    memcpy(metadata, VHDX_METADATA_SIGNATURE, 8);
    imgtk_put_le16(metadata + VHDX_METADATA_COUNT, (uint16_t)items.count);
}
