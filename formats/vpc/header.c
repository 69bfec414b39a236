/* Footer and dynamic header: pure functions between bytes and structs. */
#include <string.h>

#include "vpc.h"

/* One's complement of the sum of all bytes, those of the checksum itself counted as zero. */
static uint32_t checksum(const uint8_t *bytes, size_t size, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += i < at || i >= at + 4 ? bytes[i] : 0u;
    return ~sum;
}

static int verify(const uint8_t *bytes, size_t size, size_t at, const char *what, struct imgtk_error *err)
{
    uint32_t stored = imgtk_be32(bytes + at), real = checksum(bytes, size, at);
    if (stored == real)
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT, "the checksum of the %s is 0x%08x, its content has 0x%08x", what, stored,
                      real);
}

bool vpc_footer_has_cookie(const uint8_t *bytes)
{
    return memcmp(bytes + VPC_FOOTER_AT_COOKIE, VPC_FOOTER_COOKIE, 8) == 0;
}

int vpc_footer_parse(const uint8_t bytes[VPC_FOOTER_SIZE], struct vpc_footer *out, struct imgtk_error *err)
{
    if (!vpc_footer_has_cookie(bytes))
        return imgtk_fail(err, IMGTK_ECORRUPT, "there is no VHD footer");
    int status = verify(bytes, VPC_FOOTER_SIZE, VPC_FOOTER_AT_CHECKSUM, "footer", err);
    if (status)
        return status;
    uint32_t version = imgtk_be32(bytes + VPC_FOOTER_AT_VERSION);
    if (version >> 16 != VPC_VERSION >> 16)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "version %u.%u of the VHD format is not supported", version >> 16,
                          version & 0xffff);
    uint32_t type = imgtk_be32(bytes + VPC_FOOTER_AT_TYPE);
    if (type != VPC_FIXED && type != VPC_DYNAMIC && type != VPC_DIFFERENCING)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "disk type %u is not supported", type);
    *out = (struct vpc_footer){
        .data_offset = imgtk_be64(bytes + VPC_FOOTER_AT_DATA_OFFSET),
        .timestamp = imgtk_be32(bytes + VPC_FOOTER_AT_TIMESTAMP),
        .creator_version = imgtk_be32(bytes + VPC_FOOTER_AT_CREATOR_VERSION),
        .original_size = imgtk_be64(bytes + VPC_FOOTER_AT_ORIGINAL_SIZE),
        .current_size = imgtk_be64(bytes + VPC_FOOTER_AT_CURRENT_SIZE),
        .geometry = { imgtk_be16(bytes + VPC_FOOTER_AT_CYLINDERS), bytes[VPC_FOOTER_AT_HEADS],
                      bytes[VPC_FOOTER_AT_SECTORS] },
        .type = (enum vpc_type)type,
    };
    memcpy(out->creator, bytes + VPC_FOOTER_AT_CREATOR, sizeof(out->creator));
    memcpy(out->creator_os, bytes + VPC_FOOTER_AT_CREATOR_OS, sizeof(out->creator_os));
    memcpy(out->uuid, bytes + VPC_FOOTER_AT_UUID, UUID_SIZE);
    return 0;
}

void vpc_footer_encode(const struct vpc_footer *footer, uint8_t out[VPC_FOOTER_SIZE])
{
    memset(out, 0, VPC_FOOTER_SIZE);
    memcpy(out + VPC_FOOTER_AT_COOKIE, VPC_FOOTER_COOKIE, 8);
    imgtk_put_be32(out + VPC_FOOTER_AT_FEATURES, VPC_FEATURES_RESERVED);
    imgtk_put_be32(out + VPC_FOOTER_AT_VERSION, VPC_VERSION);
    imgtk_put_be64(out + VPC_FOOTER_AT_DATA_OFFSET, footer->data_offset);
    imgtk_put_be32(out + VPC_FOOTER_AT_TIMESTAMP, footer->timestamp);
    memcpy(out + VPC_FOOTER_AT_CREATOR, footer->creator, sizeof(footer->creator));
    imgtk_put_be32(out + VPC_FOOTER_AT_CREATOR_VERSION, footer->creator_version);
    memcpy(out + VPC_FOOTER_AT_CREATOR_OS, footer->creator_os, sizeof(footer->creator_os));
    imgtk_put_be64(out + VPC_FOOTER_AT_ORIGINAL_SIZE, footer->original_size);
    imgtk_put_be64(out + VPC_FOOTER_AT_CURRENT_SIZE, footer->current_size);
    imgtk_put_be16(out + VPC_FOOTER_AT_CYLINDERS, footer->geometry.cylinders);
    out[VPC_FOOTER_AT_HEADS] = footer->geometry.heads;
    out[VPC_FOOTER_AT_SECTORS] = footer->geometry.sectors;
    imgtk_put_be32(out + VPC_FOOTER_AT_TYPE, (uint32_t)footer->type);
    memcpy(out + VPC_FOOTER_AT_UUID, footer->uuid, UUID_SIZE);
    imgtk_put_be32(out + VPC_FOOTER_AT_CHECKSUM, checksum(out, VPC_FOOTER_SIZE, VPC_FOOTER_AT_CHECKSUM));
}

static struct vpc_locator parse_locator(const uint8_t *bytes)
{
    return (struct vpc_locator){
        .platform = imgtk_be32(bytes + VPC_LOCATOR_AT_PLATFORM),
        .length = imgtk_be32(bytes + VPC_LOCATOR_AT_LENGTH),
        .offset = imgtk_be64(bytes + VPC_LOCATOR_AT_OFFSET),
    };
}

int vpc_header_parse(const uint8_t bytes[VPC_HEADER_SIZE], struct vpc_header *out, struct imgtk_error *err)
{
    if (memcmp(bytes + VPC_HEADER_AT_COOKIE, VPC_HEADER_COOKIE, 8) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "there is no dynamic disk header where the footer says");
    int status = verify(bytes, VPC_HEADER_SIZE, VPC_HEADER_AT_CHECKSUM, "dynamic disk header", err);
    if (status)
        return status;
    uint32_t version = imgtk_be32(bytes + VPC_HEADER_AT_VERSION);
    if (version >> 16 != VPC_VERSION >> 16)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "version %u.%u of the dynamic disk header is not supported",
                          version >> 16, version & 0xffff);
    out->table_offset = imgtk_be64(bytes + VPC_HEADER_AT_TABLE_OFFSET);
    out->entries = imgtk_be32(bytes + VPC_HEADER_AT_ENTRIES);
    out->block_size = imgtk_be32(bytes + VPC_HEADER_AT_BLOCK_SIZE);
    if (out->block_size < VPC_SECTOR || !imgtk_is_power_of_two(out->block_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "block size %u is not a power of two of at least %u", out->block_size,
                          VPC_SECTOR);
    memcpy(out->parent_uuid, bytes + VPC_HEADER_AT_PARENT_UUID, UUID_SIZE);
    memcpy(out->parent_name, bytes + VPC_HEADER_AT_PARENT_NAME, VPC_PARENT_NAME_SIZE);
    for (unsigned i = 0; i < VPC_LOCATORS; i++)
        out->locators[i] = parse_locator(bytes + VPC_HEADER_AT_LOCATORS + i * VPC_LOCATOR_SIZE);
    return 0;
}

void vpc_header_encode(const struct vpc_header *header, uint8_t out[VPC_HEADER_SIZE])
{
    memset(out, 0, VPC_HEADER_SIZE);
    memcpy(out + VPC_HEADER_AT_COOKIE, VPC_HEADER_COOKIE, 8);
    imgtk_put_be64(out + VPC_HEADER_AT_DATA_OFFSET, VPC_NO_OFFSET);
    imgtk_put_be64(out + VPC_HEADER_AT_TABLE_OFFSET, header->table_offset);
    imgtk_put_be32(out + VPC_HEADER_AT_VERSION, VPC_VERSION);
    imgtk_put_be32(out + VPC_HEADER_AT_ENTRIES, header->entries);
    imgtk_put_be32(out + VPC_HEADER_AT_BLOCK_SIZE, header->block_size);
    imgtk_put_be32(out + VPC_HEADER_AT_CHECKSUM, checksum(out, VPC_HEADER_SIZE, VPC_HEADER_AT_CHECKSUM));
}
