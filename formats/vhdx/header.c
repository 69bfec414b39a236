#include <inttypes.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

int vhdx_header_parse(const uint8_t bytes[VHDX_HEADER_SIZE], struct vhdx_header *out, struct imgtk_error *err)
{
    if (imgtk_le32(bytes + VHDX_SIGNATURE) != VHDX_HEADER_SIGNATURE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "header signature is 0x%08" PRIx32 ", not \"head\"",
                          imgtk_le32(bytes + VHDX_SIGNATURE));
    uint32_t stored = imgtk_le32(bytes + VHDX_CHECKSUM), computed = vhdx_checksum(bytes, VHDX_HEADER_SIZE);
    if (stored != computed)
        return imgtk_fail(err, IMGTK_ECORRUPT, "header checksum is 0x%08" PRIx32 ", its content has 0x%08" PRIx32,
                          stored, computed);
    unsigned version = imgtk_le16(bytes + VHDX_HEADER_VERSION);
    if (version != VHDX_VERSION)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "format version %u, only %d is known", version, VHDX_VERSION);
    out->sequence = imgtk_le64(bytes + VHDX_HEADER_SEQUENCE);
    out->file_write = vhdx_guid_at(bytes + VHDX_HEADER_FILE_WRITE_GUID);
    out->data_write = vhdx_guid_at(bytes + VHDX_HEADER_DATA_WRITE_GUID);
    out->log_guid = vhdx_guid_at(bytes + VHDX_HEADER_LOG_GUID);
    out->log_length = imgtk_le32(bytes + VHDX_HEADER_LOG_LENGTH);
    out->log_offset = imgtk_le64(bytes + VHDX_HEADER_LOG_OFFSET);
    unsigned log_version = imgtk_le16(bytes + VHDX_HEADER_LOG_VERSION);
    if (log_version != VHDX_LOG_VERSION && !vhdx_guid_is_zero(&out->log_guid))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "log version %u, only %d is known", log_version, VHDX_LOG_VERSION);
    return 0;
}

int vhdx_header_choose(const uint8_t first[VHDX_HEADER_SIZE], const uint8_t second[VHDX_HEADER_SIZE],
                       struct vhdx_header_choice *out, struct imgtk_error *err)
{
    struct vhdx_header headers[2];
    struct imgtk_error other;
    int first_status = vhdx_header_parse(first, &headers[0], err);
    int second_status = vhdx_header_parse(second, &headers[1], &other);
    /* Of another version than ours, a header is not damaged: the other one may be older than it. */
    if (second_status == IMGTK_EUNSUPPORTED && first_status != IMGTK_EUNSUPPORTED)
        return imgtk_fail(err, second_status, "%s", other.message);
    if (first_status == IMGTK_EUNSUPPORTED)
        return first_status;
    if (first_status && second_status)
        return imgtk_fail_prefix(err, "neither header is usable; the first");
    if (!first_status && !second_status && headers[0].sequence == headers[1].sequence &&
        memcmp(first, second, VHDX_HEADER_SIZE) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "both headers have sequence number %" PRIu64 " but differ",
                          headers[0].sequence);
    out->number = first_status || (!second_status && headers[1].sequence > headers[0].sequence) ? 2 : 1;
    out->damaged = first_status ? 1 : second_status ? 2 : 0;
    out->header = headers[out->number - 1];
    return 0;
}
