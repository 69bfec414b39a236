/* The header: pure functions between bytes and a struct. */
#include <string.h>

#include "vdi.h"

bool vdi_has_signature(const uint8_t *bytes, size_t length)
{
    return length >= VDI_PREHEADER_SIZE && imgtk_le32(bytes + VDI_AT_SIGNATURE) == VDI_SIGNATURE;
}

/* On disk the first three fields of a UUID are little-endian. */
static void get_uuid(const uint8_t *at, uint8_t out[UUID_SIZE])
{
    uuid_swap_fields(at, out);
}

static void parse_version_0(const uint8_t *bytes, struct vdi_header *out)
{
    out->type = (enum vdi_type)imgtk_le32(bytes + VDI0_AT_TYPE);
    out->disk_size = imgtk_le64(bytes + VDI0_AT_DISK_SIZE);
    out->block_size = imgtk_le32(bytes + VDI0_AT_BLOCK_SIZE);
    out->blocks = imgtk_le32(bytes + VDI0_AT_BLOCKS);
    out->blocks_allocated = imgtk_le32(bytes + VDI0_AT_BLOCKS_ALLOCATED);
    out->table_offset = VDI0_HEADER_END;
    out->data_offset = VDI0_HEADER_END + (uint64_t)out->blocks * 4;
    get_uuid(bytes + VDI0_AT_UUID, out->uuid);
    get_uuid(bytes + VDI0_AT_UUID_MODIFY, out->uuid_modify);
    get_uuid(bytes + VDI0_AT_UUID_LINK, out->uuid_link);
}

static int parse_version_1(const uint8_t *bytes, struct vdi_header *out, struct imgtk_error *err)
{
    uint32_t size = imgtk_le32(bytes + VDI_AT_HEADER_SIZE);
    if (size < VDI_HEADER_END - VDI_AT_HEADER_SIZE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the header says that it has %u bytes; it must have at least %u", size,
                          (unsigned)(VDI_HEADER_END - VDI_AT_HEADER_SIZE));
    out->type = (enum vdi_type)imgtk_le32(bytes + VDI_AT_TYPE);
    out->table_offset = imgtk_le32(bytes + VDI_AT_TABLE_OFFSET);
    out->data_offset = imgtk_le32(bytes + VDI_AT_DATA_OFFSET);
    out->disk_size = imgtk_le64(bytes + VDI_AT_DISK_SIZE);
    out->block_size = imgtk_le32(bytes + VDI_AT_BLOCK_SIZE);
    out->block_extra = imgtk_le32(bytes + VDI_AT_BLOCK_EXTRA);
    out->blocks = imgtk_le32(bytes + VDI_AT_BLOCKS);
    out->blocks_allocated = imgtk_le32(bytes + VDI_AT_BLOCKS_ALLOCATED);
    get_uuid(bytes + VDI_AT_UUID, out->uuid);
    get_uuid(bytes + VDI_AT_UUID_MODIFY, out->uuid_modify);
    get_uuid(bytes + VDI_AT_UUID_LINK, out->uuid_link);
    get_uuid(bytes + VDI_AT_UUID_PARENT_MODIFY, out->uuid_parent_modify);
    return 0;
}

static int validate_type(const struct vdi_header *header, struct imgtk_error *err)
{
    if (header->type == VDI_UNDO)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "undo images are not supported");
    if (header->type != VDI_DYNAMIC && header->type != VDI_STATIC && header->type != VDI_DIFFERENCING)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "image type %u is not supported", (unsigned)header->type);
    return 0;
}

static int validate_blocks(const struct vdi_header *header, struct imgtk_error *err)
{
    if (header->block_size < VDI_MIN_BLOCK_SIZE || header->block_size > VDI_MAX_BLOCK_SIZE ||
        !imgtk_is_power_of_two(header->block_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "block size %u is not a power of two from %u to %u", header->block_size,
                          VDI_MIN_BLOCK_SIZE, VDI_MAX_BLOCK_SIZE);
    if (header->block_extra > VDI_MAX_BLOCK_EXTRA)
        return imgtk_fail(err, IMGTK_ELIMIT, "%u extra bytes per block; at most %u are supported", header->block_extra,
                          VDI_MAX_BLOCK_EXTRA);
    if (header->blocks > VDI_MAX_BLOCKS)
        return imgtk_fail(err, IMGTK_ELIMIT, "%u blocks; at most %u are supported", header->blocks, VDI_MAX_BLOCKS);
    if (header->disk_size > (uint64_t)header->blocks * header->block_size)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the disk has %llu bytes, its %u blocks of %u bytes hold only %llu",
                          (unsigned long long)header->disk_size, header->blocks, header->block_size,
                          (unsigned long long)((uint64_t)header->blocks * header->block_size));
    return 0;
}

int vdi_header_parse(const uint8_t bytes[VDI_HEADER_BYTES], struct vdi_header *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    if (!vdi_has_signature(bytes, VDI_HEADER_BYTES))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the signature is 0x%08x, not that of a VDI",
                          imgtk_le32(bytes + VDI_AT_SIGNATURE));
    out->version = imgtk_le32(bytes + VDI_AT_VERSION);
    if (VDI_VERSION_MAJOR(out->version) > 1)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "version %u.%u is not supported", VDI_VERSION_MAJOR(out->version),
                          VDI_VERSION_MINOR(out->version));
    int status = 0;
    if (VDI_VERSION_MAJOR(out->version) == 0)
        parse_version_0(bytes, out);
    else
        status = parse_version_1(bytes, out, err);
    if (!status)
        status = validate_type(out, err);
    if (!status)
        status = validate_blocks(out, err);
    if (!status) /* other tools make disks of any length; readers see whole sectors */
        out->disk_size = imgtk_round_up(out->disk_size, VDI_SECTOR);
    return status;
}

void vdi_header_encode(const struct vdi_header *header, uint8_t out[VDI_HEADER_BYTES])
{
    memset(out, 0, VDI_HEADER_BYTES);
    memcpy(out + VDI_AT_TEXT, VDI_TEXT, sizeof(VDI_TEXT) - 1);
    imgtk_put_le32(out + VDI_AT_SIGNATURE, VDI_SIGNATURE);
    imgtk_put_le32(out + VDI_AT_VERSION, VDI_VERSION_1_1);
    imgtk_put_le32(out + VDI_AT_HEADER_SIZE, VDI_HEADER_END_1_1 - VDI_AT_HEADER_SIZE);
    imgtk_put_le32(out + VDI_AT_TYPE, (uint32_t)header->type);
    imgtk_put_le32(out + VDI_AT_TABLE_OFFSET, (uint32_t)header->table_offset);
    imgtk_put_le32(out + VDI_AT_DATA_OFFSET, (uint32_t)header->data_offset);
    imgtk_put_le32(out + VDI_AT_SECTOR_SIZE, VDI_SECTOR);
    imgtk_put_le64(out + VDI_AT_DISK_SIZE, header->disk_size);
    imgtk_put_le32(out + VDI_AT_BLOCK_SIZE, header->block_size);
    imgtk_put_le32(out + VDI_AT_BLOCKS, header->blocks);
    imgtk_put_le32(out + VDI_AT_BLOCKS_ALLOCATED, header->blocks_allocated);
    uuid_swap_fields(header->uuid, out + VDI_AT_UUID);
    uuid_swap_fields(header->uuid_modify, out + VDI_AT_UUID_MODIFY);
    imgtk_put_le32(out + VDI_AT_LCHS_SECTOR_SIZE, VDI_SECTOR);
}
