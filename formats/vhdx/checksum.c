#include "imgtk/crc.h"
#include "vhdx.h"

uint32_t vhdx_checksum(const uint8_t *structure, size_t length)
{
    static const uint8_t zero[4];
    uint32_t crc = imgtk_crc32c(0, structure, VHDX_CHECKSUM);
    crc = imgtk_crc32c(crc, zero, sizeof(zero));
    return imgtk_crc32c(crc, structure + VHDX_CHECKSUM + sizeof(zero), length - VHDX_CHECKSUM - sizeof(zero));
}
