#include "seal.h"

#include <string.h>

#include "../../formats/vhdx/vhdx.h"
#include "../../formats/vpc/layout.h"
#include "imgtk/bytes.h"

static void seal_vpc(uint8_t *structure, size_t length, size_t at)
{
    uint32_t sum = 0;
    imgtk_put_be32(structure + at, 0);
    for (size_t i = 0; i < length; i++)
        sum += structure[i];
    imgtk_put_be32(structure + at, ~sum);
}

void seal_vpc_footer(uint8_t *footer)
{
    seal_vpc(footer, VPC_FOOTER_SIZE, VPC_FOOTER_AT_CHECKSUM);
}

void seal_vpc_header(uint8_t *header)
{
    seal_vpc(header, VPC_HEADER_SIZE, VPC_HEADER_AT_CHECKSUM);
}

void seal_vhdx(uint8_t *structure, size_t length)
{
    imgtk_put_le32(structure + VHDX_CHECKSUM, vhdx_checksum(structure, length));
}

void seal_vhdx_log(uint8_t *log, size_t length)
{
    for (size_t at = 0; at + VHDX_LOG_SECTOR <= length; at += VHDX_LOG_SECTOR) {
        uint32_t entry = imgtk_le32(log + at + VHDX_LOG_ENTRY_LENGTH);
        if (imgtk_le32(log + at) == VHDX_LOG_SIGNATURE && entry >= VHDX_LOG_SECTOR && entry <= length - at)
            seal_vhdx(log + at, entry);
    }
}

/* ---- Whole images ------------------------------------------------------------ */

static bool has(const uint8_t *image, size_t size, uint64_t offset, size_t length, const char *signature)
{
    return imgtk_range_fits(offset, length, size) && memcmp(image + offset, signature, strlen(signature)) == 0;
}

static void seal_image_vpc(uint8_t *image, size_t size)
{
    if (has(image, size, size - VPC_FOOTER_SIZE, VPC_FOOTER_SIZE, VPC_FOOTER_COOKIE))
        seal_vpc_footer(image + size - VPC_FOOTER_SIZE);
    if (!has(image, size, 0, VPC_FOOTER_SIZE, VPC_FOOTER_COOKIE))
        return;
    seal_vpc_footer(image);
    uint64_t header = imgtk_be64(image + VPC_FOOTER_AT_DATA_OFFSET);
    if (has(image, size, header, VPC_HEADER_SIZE, "cxsparse"))
        seal_vpc_header(image + header);
}

static void seal_image_vhdx(uint8_t *image, size_t size)
{
    static const uint64_t headers[] = { VHDX_HEADER_1_OFFSET, VHDX_HEADER_2_OFFSET };
    static const uint64_t tables[] = { VHDX_REGION_1_OFFSET, VHDX_REGION_2_OFFSET };
    for (size_t i = 0; i < 2; i++) {
        uint8_t *header = image + headers[i];
        if (has(image, size, tables[i], VHDX_REGION_TABLE_SIZE, "regi"))
            seal_vhdx(image + tables[i], VHDX_REGION_TABLE_SIZE);
        if (!has(image, size, headers[i], VHDX_HEADER_SIZE, "head"))
            continue;
        uint64_t log = imgtk_le64(header + VHDX_HEADER_LOG_OFFSET);
        uint32_t length = imgtk_le32(header + VHDX_HEADER_LOG_LENGTH);
        if (imgtk_range_fits(log, length, size))
            seal_vhdx_log(image + log, length);
        seal_vhdx(header, VHDX_HEADER_SIZE);
    }
}

void seal_image(uint8_t *image, size_t size)
{
    if (size < VPC_FOOTER_SIZE)
        return;
    seal_image_vpc(image, size);
    if (has(image, size, 0, VPC_FOOTER_SIZE, VHDX_FILE_SIGNATURE))
        seal_image_vhdx(image, size);
}
