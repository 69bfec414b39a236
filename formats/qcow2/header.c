/* The header: bytes in, validated numbers out. */
#include <inttypes.h>

#include "qcow2.h"

static void parse_fixed(const uint8_t *bytes, struct qcow2_header *out)
{
    out->version = imgtk_be32(bytes + QCOW2_AT_VERSION);
    out->backing_offset = imgtk_be64(bytes + QCOW2_AT_BACKING_OFFSET);
    out->backing_length = imgtk_be32(bytes + QCOW2_AT_BACKING_LENGTH);
    out->cluster_bits = imgtk_be32(bytes + QCOW2_AT_CLUSTER_BITS);
    out->size = imgtk_be64(bytes + QCOW2_AT_SIZE);
    out->crypt_method = imgtk_be32(bytes + QCOW2_AT_CRYPT_METHOD);
    out->l1_size = imgtk_be32(bytes + QCOW2_AT_L1_SIZE);
    out->l1_offset = imgtk_be64(bytes + QCOW2_AT_L1_OFFSET);
    out->refcount_table_offset = imgtk_be64(bytes + QCOW2_AT_REFCOUNT_TABLE_OFFSET);
    out->refcount_table_clusters = imgtk_be32(bytes + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS);
    out->snapshot_count = imgtk_be32(bytes + QCOW2_AT_SNAPSHOT_COUNT);
    out->snapshots_offset = imgtk_be64(bytes + QCOW2_AT_SNAPSHOTS_OFFSET);
    /* What version 2 implies. */
    out->refcount_order = 4;
    out->header_length = QCOW2_V2_HEADER_LENGTH;
}

static int parse_v3(const uint8_t *bytes, size_t length, struct qcow2_header *out, struct imgtk_error *err)
{
    if (length < QCOW2_V3_HEADER_LENGTH)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file ends at byte %zu, within the header of %d bytes", length,
                          QCOW2_V3_HEADER_LENGTH);
    out->incompatible = imgtk_be64(bytes + QCOW2_AT_INCOMPATIBLE);
    out->compatible = imgtk_be64(bytes + QCOW2_AT_COMPATIBLE);
    out->autoclear = imgtk_be64(bytes + QCOW2_AT_AUTOCLEAR);
    out->refcount_order = imgtk_be32(bytes + QCOW2_AT_REFCOUNT_ORDER);
    out->header_length = imgtk_be32(bytes + QCOW2_AT_HEADER_LENGTH);
    if (out->header_length < QCOW2_V3_HEADER_LENGTH)
        return imgtk_fail(err, IMGTK_ECORRUPT, "header length %" PRIu32 " is below the %d bytes of version 3",
                          out->header_length, QCOW2_V3_HEADER_LENGTH);
    if (out->header_length > QCOW2_AT_COMPRESSION_TYPE) {
        if (length <= QCOW2_AT_COMPRESSION_TYPE)
            return imgtk_fail(err, IMGTK_ECORRUPT, "the file ends at byte %zu, within the header of %" PRIu32 " bytes",
                              length, out->header_length);
        out->compression_type = bytes[QCOW2_AT_COMPRESSION_TYPE];
    }
    return 0;
}

static int validate_numbers(const struct qcow2_header *header, struct imgtk_error *err)
{
    if (header->cluster_bits < QCOW2_MIN_CLUSTER_BITS || header->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return imgtk_fail(err, IMGTK_ECORRUPT, "cluster size 2^%" PRIu32 " is not between 2^%d and 2^%d bytes",
                          header->cluster_bits, QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
    if (header->header_length > (UINT32_C(1) << header->cluster_bits))
        return imgtk_fail(err, IMGTK_ECORRUPT, "header length %" PRIu32 " is above the cluster size %" PRIu32,
                          header->header_length, UINT32_C(1) << header->cluster_bits);
    if (header->refcount_order > QCOW2_MAX_REFCOUNT_ORDER)
        return imgtk_fail(err, IMGTK_ECORRUPT, "refcount width 2^%" PRIu32 " is above the limit of 64 bits",
                          header->refcount_order);
    if (header->size > QCOW2_MAX_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "virtual size %" PRIu64 " is above the limit of %" PRId64 " bytes",
                          header->size, QCOW2_MAX_SIZE);
    return 0;
}

static int validate_crypt_method(uint32_t method, struct imgtk_error *err)
{
    switch (method) {
    case QCOW2_CRYPT_NONE:
        return 0;
    case QCOW2_CRYPT_AES:
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the image is encrypted with AES, which is not supported");
    case QCOW2_CRYPT_LUKS:
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the image is encrypted with LUKS, which is not supported");
    default:
        return imgtk_fail(err, IMGTK_ECORRUPT, "unknown encryption method %" PRIu32, method);
    }
}

static int validate_compression(const struct qcow2_header *header, struct imgtk_error *err)
{
    bool flagged = header->incompatible & QCOW2_INCOMPAT_COMPRESSION;
    if (header->compression_type > QCOW2_COMPRESSION_ZSTD)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "unknown compression type %u", header->compression_type);
    if (flagged != (header->compression_type != QCOW2_COMPRESSION_ZLIB))
        return imgtk_fail(err, IMGTK_ECORRUPT, "compression type %u contradicts the compression feature bit, which is %s",
                          header->compression_type, flagged ? "set" : "not set");
    return 0;
}

static int validate_extended_l2(const struct qcow2_header *header, struct imgtk_error *err)
{
    if ((header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) && header->cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS)
        return imgtk_fail(err, IMGTK_ECORRUPT, "cluster size 2^%" PRIu32 " is below the 2^%d bytes of extended L2 entries",
                          header->cluster_bits, QCOW2_MIN_EXTENDED_CLUSTER_BITS);
    return 0;
}

static int validate_aligned(const struct qcow2_header *header, uint64_t offset, const char *what,
                            struct imgtk_error *err)
{
    if (offset & ((UINT64_C(1) << header->cluster_bits) - 1))
        return imgtk_fail(err, IMGTK_ECORRUPT, "%s offset 0x%" PRIx64 " is not a multiple of the cluster size %" PRIu32,
                          what, offset, UINT32_C(1) << header->cluster_bits);
    return 0;
}

static int validate_l1(const struct qcow2_header *header, struct imgtk_error *err)
{
    struct qcow2_geometry geometry = qcow2_header_geometry(header);
    uint64_t needed = qcow2_l1_entries(&geometry, header->size);
    if (header->l1_size > QCOW2_MAX_L1_BYTES / sizeof(uint64_t))
        return imgtk_fail(err, IMGTK_ELIMIT, "L1 table of %" PRIu32 " entries is above the limit of %" PRIu64,
                          header->l1_size, QCOW2_MAX_L1_BYTES / sizeof(uint64_t));
    if (header->l1_size < needed)
        return imgtk_fail(err, IMGTK_ECORRUPT,
                          "L1 table of %" PRIu32 " entries is too small for the disk, which needs %" PRIu64,
                          header->l1_size, needed);
    return validate_aligned(header, header->l1_offset, "L1 table", err);
}

static int validate_refcount_table(const struct qcow2_header *header, struct imgtk_error *err)
{
    uint64_t bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    if (bytes > QCOW2_MAX_REFCOUNT_TABLE_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT, "refcount table of %" PRIu64 " bytes is above the limit of %" PRIu64, bytes,
                          QCOW2_MAX_REFCOUNT_TABLE_BYTES);
    return validate_aligned(header, header->refcount_table_offset, "refcount table", err);
}

static int validate_snapshots(const struct qcow2_header *header, struct imgtk_error *err)
{
    if (header->snapshot_count > QCOW2_MAX_SNAPSHOTS)
        return imgtk_fail(err, IMGTK_ELIMIT, "%" PRIu32 " snapshots are above the limit of %u", header->snapshot_count,
                          QCOW2_MAX_SNAPSHOTS);
    return header->snapshot_count ? validate_aligned(header, header->snapshots_offset, "snapshot table", err) : 0;
}

static int validate_backing(const struct qcow2_header *header, struct imgtk_error *err)
{
    if (header->backing_offset == 0)
        return 0;
    if (header->backing_length > QCOW2_MAX_NAME)
        return imgtk_fail(err, IMGTK_ELIMIT, "backing file name of %" PRIu32 " bytes is above the limit of %d",
                          header->backing_length, QCOW2_MAX_NAME);
    if (!imgtk_range_fits(header->backing_offset, header->backing_length, UINT64_C(1) << header->cluster_bits))
        return imgtk_fail(err, IMGTK_ECORRUPT, "backing file name at 0x%" PRIx64 " is not within the first cluster",
                          header->backing_offset);
    return 0;
}

int qcow2_header_parse(const uint8_t *bytes, size_t length, struct qcow2_header *out, struct imgtk_error *err)
{
    *out = (struct qcow2_header){ 0 };
    if (length < QCOW2_V2_HEADER_LENGTH)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file ends at byte %zu, within the header of %d bytes", length,
                          QCOW2_V2_HEADER_LENGTH);
    if (imgtk_be32(bytes + QCOW2_AT_MAGIC) != QCOW2_MAGIC)
        return imgtk_fail(err, IMGTK_EINVAL, "not a qcow2 image");
    parse_fixed(bytes, out);
    if (out->version != 2 && out->version != 3)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "qcow2 version %" PRIu32 " is neither 2 nor 3", out->version);
    int status = out->version == 3 ? parse_v3(bytes, length, out, err) : 0;
    if (status == 0)
        status = validate_numbers(out, err);
    return status;
}

int qcow2_header_validate(const struct qcow2_header *header, struct imgtk_error *err)
{
    int status = validate_crypt_method(header->crypt_method, err);
    if (status == 0)
        status = validate_compression(header, err);
    if (status == 0)
        status = validate_extended_l2(header, err);
    if (status == 0)
        status = validate_l1(header, err);
    if (status == 0)
        status = validate_refcount_table(header, err);
    if (status == 0)
        status = validate_snapshots(header, err);
    return status == 0 ? validate_backing(header, err) : status;
}

static int table_in_file(const char *what, uint64_t offset, uint64_t bytes, uint64_t file_size, struct imgtk_error *err)
{
    if (imgtk_range_fits(offset, bytes, file_size))
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT,
                      "%s of %" PRIu64 " bytes at 0x%" PRIx64 " reaches beyond the end of the file at 0x%" PRIx64, what,
                      bytes, offset, file_size);
}

int qcow2_header_check_file(const struct qcow2_header *header, uint64_t file_size, struct imgtk_error *err)
{
    int status = 0;
    uint64_t l1_bytes = (uint64_t)header->l1_size * sizeof(uint64_t);
    if (l1_bytes > 0)
        status = table_in_file("L1 table", header->l1_offset, l1_bytes, file_size, err);
    if (status == 0 && header->snapshot_count > 0)
        status = table_in_file("snapshot table", header->snapshots_offset,
                               (uint64_t)header->snapshot_count * QCOW2_SNAPSHOT_ENTRY, file_size, err);
    return status;
}

struct qcow2_geometry qcow2_header_geometry(const struct qcow2_header *header)
{
    return qcow2_geometry(header->cluster_bits, header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2,
                          header->refcount_order);
}
