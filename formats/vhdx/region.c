#include <inttypes.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

int vhdx_regions_verify(const uint8_t table[VHDX_REGION_TABLE_SIZE], struct imgtk_error *err)
{
    if (imgtk_le32(table + VHDX_SIGNATURE) != VHDX_REGION_SIGNATURE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "region table signature is 0x%08" PRIx32 ", not \"regi\"",
                          imgtk_le32(table + VHDX_SIGNATURE));
    uint32_t stored = imgtk_le32(table + VHDX_CHECKSUM), computed = vhdx_checksum(table, VHDX_REGION_TABLE_SIZE);
    if (stored != computed)
        return imgtk_fail(err, IMGTK_ECORRUPT, "region table checksum is 0x%08" PRIx32 ", its content has 0x%08" PRIx32,
                          stored, computed);
    return 0;
}

static const uint8_t *entry_at(const uint8_t *table, uint32_t index)
{
    return table + VHDX_REGION_ENTRIES + (size_t)index * VHDX_REGION_ENTRY_SIZE;
}

static struct vhdx_region region_at(const uint8_t *entry)
{
    struct vhdx_region region = { imgtk_le64(entry + VHDX_REGION_ENTRY_OFFSET),
                                  imgtk_le32(entry + VHDX_REGION_ENTRY_LENGTH) };
    return region;
}

static bool overlap(const struct vhdx_region *a, const struct vhdx_region *b)
{
    return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static int check_region(const struct vhdx_region *region, uint64_t file_size, struct imgtk_error *err)
{
    if (region->offset < VHDX_SECTION_SIZE || region->offset % VHDX_MIB || region->length % VHDX_MIB ||
        region->length == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "region at %" PRIu64 " of %" PRIu64
                          " bytes is not in whole MiB above 1 MiB", region->offset, region->length);
    if (!imgtk_range_fits(region->offset, region->length, file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "region at %" PRIu64 " of %" PRIu64 " bytes ends beyond the file's %"
                          PRIu64, region->offset, region->length, file_size);
    return 0;
}

static int check_overlaps(const uint8_t *table, uint32_t index, const struct vhdx_region *log, struct imgtk_error *err)
{
    struct vhdx_region region = region_at(entry_at(table, index));
    if (overlap(&region, log))
        return imgtk_fail(err, IMGTK_ECORRUPT, "region at %" PRIu64 " overlaps the log at %" PRIu64, region.offset,
                          log->offset);
    for (uint32_t i = 0; i < index; i++) {
        struct vhdx_region other = region_at(entry_at(table, i));
        if (overlap(&region, &other))
            return imgtk_fail(err, IMGTK_ECORRUPT, "regions at %" PRIu64 " and %" PRIu64 " overlap", other.offset,
                              region.offset);
    }
    return 0;
}

static int take_region(const uint8_t *entry, struct vhdx_regions *out, struct imgtk_error *err)
{
    struct vhdx_guid guid = vhdx_guid_at(entry);
    struct vhdx_region *known = vhdx_guid_equal(&guid, VHDX_GUID_BAT) ? &out->bat
                              : vhdx_guid_equal(&guid, VHDX_GUID_METADATA) ? &out->metadata : NULL;
    char text[UUID_TEXT_SIZE];
    vhdx_guid_format(&guid, text);
    if (!known && (imgtk_le32(entry + VHDX_REGION_ENTRY_REQUIRED) & 1))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "required region %s is not known", text);
    if (!known) {
        out->other_length += region_at(entry).length;
        return 0;
    }
    if (known->length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "region %s is listed twice", text);
    *known = region_at(entry);
    return 0;
}

int vhdx_regions_parse(const uint8_t table[VHDX_REGION_TABLE_SIZE], const struct vhdx_region_limits *limits,
                       struct vhdx_regions *out, struct imgtk_error *err)
{
    *out = (struct vhdx_regions){ 0 };
    int status = vhdx_regions_verify(table, err);
    uint32_t count = imgtk_le32(table + VHDX_REGION_COUNT);
    if (!status && count > VHDX_REGION_MAX_ENTRIES)
        return imgtk_fail(err, IMGTK_ECORRUPT, "region table has %" PRIu32 " entries, at most %d can be", count,
                          VHDX_REGION_MAX_ENTRIES);
    for (uint32_t i = 0; !status && i < count; i++) {
        struct vhdx_region region = region_at(entry_at(table, i));
        status = check_region(&region, limits->file_size, err);
        if (!status)
            status = check_overlaps(table, i, &limits->log, err);
        if (!status)
            status = take_region(entry_at(table, i), out, err);
    }
    if (!status && !out->bat.length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the region table lists no block allocation table");
    if (!status && !out->metadata.length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the region table lists no metadata region");
    return status;
}
