#include <inttypes.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

static const uint8_t *entry_at(const uint8_t *table, unsigned index)
{
    return table + VHDX_METADATA_ENTRIES + (size_t)index * VHDX_METADATA_ENTRY_SIZE;
}

static struct vhdx_item item_at(const uint8_t *entry)
{
    struct vhdx_item item = { imgtk_le32(entry + VHDX_METADATA_ENTRY_OFFSET),
                              imgtk_le32(entry + VHDX_METADATA_ENTRY_LENGTH), true };
    return item;
}

static int check_place(const struct vhdx_item *item, const char *name, uint64_t region_length, struct imgtk_error *err)
{
    if (item->length == 0)
        return item->offset == 0 ? 0
            : imgtk_fail(err, IMGTK_ECORRUPT, "empty metadata item %s has offset %" PRIu32, name, item->offset);
    if (item->length > VHDX_METADATA_MAX_ITEM)
        return imgtk_fail(err, IMGTK_ECORRUPT, "metadata item %s has %" PRIu32 " bytes, at most 1 MiB can be", name,
                          item->length);
    if (item->offset < VHDX_METADATA_TABLE_SIZE || !imgtk_range_fits(item->offset, item->length, region_length))
        return imgtk_fail(err, IMGTK_ECORRUPT, "metadata item %s at %" PRIu32 " of %" PRIu32
                          " bytes is outside the metadata region of %" PRIu64, name, item->offset, item->length,
                          region_length);
    return 0;
}

static int check_overlaps(const uint8_t *table, unsigned index, const char *name, struct imgtk_error *err)
{
    struct vhdx_item item = item_at(entry_at(table, index));
    for (unsigned i = 0; i < index; i++) {
        struct vhdx_item other = item_at(entry_at(table, i));
        if (item.length && other.length && item.offset < (uint64_t)other.offset + other.length &&
            other.offset < (uint64_t)item.offset + item.length)
            return imgtk_fail(err, IMGTK_ECORRUPT, "metadata item %s at %" PRIu32 " overlaps another at %" PRIu32, name,
                              item.offset, other.offset);
    }
    return 0;
}

static struct vhdx_item *known_item(struct vhdx_items *items, const struct vhdx_guid *guid)
{
    const struct {
        const char *guid;
        struct vhdx_item *item;
    } known[] = {
        { VHDX_GUID_FILE_PARAMETERS, &items->file_parameters },
        { VHDX_GUID_DISK_SIZE, &items->disk_size },
        { VHDX_GUID_DISK_ID, &items->disk_id },
        { VHDX_GUID_LOGICAL_SECTOR, &items->logical_sector },
        { VHDX_GUID_PHYSICAL_SECTOR, &items->physical_sector },
        { VHDX_GUID_PARENT_LOCATOR, &items->parent_locator },
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (vhdx_guid_equal(guid, known[i].guid))
            return known[i].item;
    }
    return NULL;
}

static int take_item(const uint8_t *table, unsigned index, uint64_t region_length, struct vhdx_items *out,
                     struct imgtk_error *err)
{
    const uint8_t *entry = entry_at(table, index);
    struct vhdx_guid guid = vhdx_guid_at(entry);
    struct vhdx_item item = item_at(entry);
    uint32_t flags = imgtk_le32(entry + VHDX_METADATA_ENTRY_FLAGS);
    char name[UUID_TEXT_SIZE];
    vhdx_guid_format(&guid, name);
    int status = check_place(&item, name, region_length, err);
    if (!status)
        status = check_overlaps(table, index, name, err);
    if (status)
        return status;
    struct vhdx_item *known = flags & VHDX_METADATA_IS_USER ? NULL : known_item(out, &guid);
    if (!known)
        return flags & VHDX_METADATA_IS_REQUIRED
            ? imgtk_fail(err, IMGTK_EUNSUPPORTED, "required metadata item %s is not known", name) : 0;
    if (known->present)
        return imgtk_fail(err, IMGTK_ECORRUPT, "metadata item %s is listed twice", name);
    *known = item;
    return 0;
}

static int require(const struct vhdx_item *item, uint32_t length, const char *what, struct imgtk_error *err)
{
    if (!item->present)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the metadata lack the %s", what);
    if (item->length != length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the %s in the metadata has %" PRIu32 " bytes, not %" PRIu32, what,
                          item->length, length);
    return 0;
}

int vhdx_metadata_parse_table(const uint8_t table[VHDX_METADATA_TABLE_SIZE], uint64_t region_length,
                              struct vhdx_items *out, struct imgtk_error *err)
{
    *out = (struct vhdx_items){ 0 };
    if (memcmp(table, VHDX_METADATA_SIGNATURE, 8) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the metadata table has no signature \"metadata\"");
    unsigned count = imgtk_le16(table + VHDX_METADATA_COUNT);
    if (count > VHDX_METADATA_MAX_ENTRIES)
        return imgtk_fail(err, IMGTK_ECORRUPT, "metadata table has %u entries, at most %d can be", count,
                          VHDX_METADATA_MAX_ENTRIES);
    int status = 0;
    for (unsigned i = 0; !status && i < count; i++)
        status = take_item(table, i, region_length, out, err);
    if (!status)
        status = require(&out->file_parameters, VHDX_FILE_PARAMETERS_SIZE, "file parameters", err);
    if (!status)
        status = require(&out->disk_size, 8, "virtual disk size", err);
    if (!status)
        status = require(&out->disk_id, 16, "virtual disk ID", err);
    if (!status)
        status = require(&out->logical_sector, 4, "logical sector size", err);
    if (!status)
        status = require(&out->physical_sector, 4, "physical sector size", err);
    return status;
}

static bool is_sector_size(uint32_t size)
{
    return size == 512 || size == 4096;
}

int vhdx_metadata_validate(const struct vhdx_metadata *metadata, struct imgtk_error *err)
{
    if (metadata->block_size < VHDX_MIN_BLOCK_SIZE || metadata->block_size > VHDX_MAX_BLOCK_SIZE ||
        !imgtk_is_power_of_two(metadata->block_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "block size %" PRIu32 " is not a power of two from 1 MiB to 256 MiB",
                          metadata->block_size);
    if (!is_sector_size(metadata->logical_sector))
        return imgtk_fail(err, IMGTK_ECORRUPT, "logical sector size %" PRIu32 " is neither 512 nor 4096",
                          metadata->logical_sector);
    if (!is_sector_size(metadata->physical_sector))
        return imgtk_fail(err, IMGTK_ECORRUPT, "physical sector size %" PRIu32 " is neither 512 nor 4096",
                          metadata->physical_sector);
    if (metadata->disk_size > VHDX_MAX_DISK_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "virtual disk of %" PRIu64 " bytes, at most 64 TiB can be",
                          metadata->disk_size);
    if (metadata->disk_size % metadata->logical_sector)
        return imgtk_fail(err, IMGTK_ECORRUPT, "virtual disk of %" PRIu64 " bytes is not whole sectors of %" PRIu32,
                          metadata->disk_size, metadata->logical_sector);
    if (metadata->has_parent && !metadata->parent_locator.length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "a differencing disk without a parent locator");
    return 0;
}
