/* The headers of sparse extents: bytes in, validated host-endian structs out. */
#include <string.h>

#include "vmdk.h"

static int check_grain(uint64_t sectors, struct imgtk_error *err)
{
    if (!imgtk_is_power_of_two(sectors) || sectors > VMDK_MAX_GRAIN / VMDK_SECTOR)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the grain size of %llu sectors is not a power of two up to %u",
                          (unsigned long long)sectors, VMDK_MAX_GRAIN / VMDK_SECTOR);
    return 0;
}

static int check_capacity(uint64_t sectors, struct imgtk_error *err)
{
    if (sectors == 0 || sectors > VMDK_MAX_SIZE / VMDK_SECTOR)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the capacity of %llu sectors is not between 1 and %llu",
                          (unsigned long long)sectors, (unsigned long long)(VMDK_MAX_SIZE / VMDK_SECTOR));
    return 0;
}

/* Sectors to bytes for a place in the file, of `length` bytes. */
static int check_place(const char *what, uint64_t sector, uint64_t length, uint64_t file_size, uint64_t *out,
                       struct imgtk_error *err)
{
    if (sector == 0 || sector > file_size / VMDK_SECTOR || !imgtk_range_fits(sector * VMDK_SECTOR, length, file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the %s at sector %llu with %llu bytes does not lie within the file of "
                          "%llu bytes", what, (unsigned long long)sector, (unsigned long long)length,
                          (unsigned long long)file_size);
    *out = sector * VMDK_SECTOR;
    return 0;
}

static int count_tables(struct vmdk_sparse *out, struct imgtk_error *err)
{
    uint64_t coverage = out->grain * out->gtes_per_gt; /* at most 2^30 * 2^12 */
    out->gd_entries = imgtk_div_round_up(out->capacity, coverage);
    if (out->gd_entries > VMDK_MAX_GD_ENTRIES)
        return imgtk_fail(err, IMGTK_ELIMIT, "a capacity of %llu bytes needs a grain directory of %llu entries; the "
                          "limit is %u", (unsigned long long)out->capacity, (unsigned long long)out->gd_entries,
                          VMDK_MAX_GD_ENTRIES);
    return 0;
}

/* ---- Hosted ---------------------------------------------------------------- */

static int check_version_and_flags(const uint8_t *header, struct vmdk_sparse *out, struct imgtk_error *err)
{
    uint32_t version = imgtk_le32(header + VMDK_H_VERSION);
    uint32_t flags = imgtk_le32(header + VMDK_H_FLAGS);
    if (version == 0 || version > VMDK_HOSTED_MAX_VERSION)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the header has version %u; supported are 1 to %u", version,
                          VMDK_HOSTED_MAX_VERSION);
    uint32_t unknown = flags & VMDK_FLAGS_INCOMPATIBLE & ~(uint32_t)(VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS);
    if (unknown)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the header has the unknown incompatible flags 0x%x", unknown);
    if ((flags & VMDK_FLAG_NEWLINES) && memcmp(header + VMDK_H_NEWLINES, "\n \r\n", 4) != 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the header's line ends were changed, as a transfer in text mode does");
    out->zero_grains = (flags & VMDK_FLAG_ZERO_GRAINS) != 0;
    out->markers = (flags & VMDK_FLAG_MARKERS) != 0;
    out->unclean = header[VMDK_H_UNCLEAN] != 0;
    return 0;
}

static int check_compression(const uint8_t *header, struct vmdk_sparse *out, struct imgtk_error *err)
{
    uint16_t algorithm = imgtk_le16(header + VMDK_H_COMPRESSION);
    if (algorithm > VMDK_COMPRESSION_DEFLATE)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the header has the unknown compression algorithm %u",
                          (unsigned)algorithm);
    out->compressed = algorithm == VMDK_COMPRESSION_DEFLATE;
    if (!out->compressed && (imgtk_le32(header + VMDK_H_FLAGS) & VMDK_FLAG_COMPRESSED))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the header says that grains are compressed, but not how");
    if (out->compressed && out->grain > VMDK_MAX_COMPRESSED_GRAIN)
        return imgtk_fail(err, IMGTK_ELIMIT, "compressed grains of %llu bytes are above the limit of %u",
                          (unsigned long long)out->grain, VMDK_MAX_COMPRESSED_GRAIN);
    return 0;
}

static int check_descriptor_place(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out,
                                  struct imgtk_error *err)
{
    uint64_t offset = imgtk_le64(header + VMDK_H_DESCRIPTOR_OFFSET);
    uint64_t sectors = imgtk_le64(header + VMDK_H_DESCRIPTOR_SIZE);
    out->first_byte = VMDK_HOSTED_HEADER_SIZE;
    out->overhead = imgtk_min_u64(imgtk_le64(header + VMDK_H_OVERHEAD), UINT64_MAX / VMDK_SECTOR) * VMDK_SECTOR;
    if (offset == 0 || sectors == 0)
        return 0;
    if (sectors > VMDK_MAX_DESCRIPTOR / VMDK_SECTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "the embedded descriptor has %llu sectors; the limit is %u",
                          (unsigned long long)sectors, VMDK_MAX_DESCRIPTOR / VMDK_SECTOR);
    out->descriptor_length = sectors * VMDK_SECTOR;
    int status = check_place("embedded descriptor", offset, out->descriptor_length, file_size,
                             &out->descriptor_offset, err);
    if (!status && offset == 1) /* where the specification has it; anywhere else it is no bound for the tables */
        out->first_byte = out->descriptor_offset + out->descriptor_length;
    return status;
}

static int check_tables(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err)
{
    out->gtes_per_gt = imgtk_le32(header + VMDK_H_GTES_PER_GT);
    if (out->gtes_per_gt == 0 || out->gtes_per_gt > VMDK_PIECE_GRAINS)
        return imgtk_fail(err, IMGTK_ECORRUPT, "a grain table of %u entries is not between 1 and %u",
                          out->gtes_per_gt, VMDK_PIECE_GRAINS);
    int status = count_tables(out, err);
    if (status)
        return status;
    uint64_t gd = imgtk_le64(header + VMDK_H_GD_OFFSET);
    if (gd == VMDK_GD_AT_END) {
        out->tables_at_end = true;
        return 0;
    }
    uint64_t bytes = out->gd_entries * 4;
    uint64_t rgd = imgtk_le64(header + VMDK_H_RGD_OFFSET);
    bool redundant = (imgtk_le32(header + VMDK_H_FLAGS) & VMDK_FLAG_REDUNDANT) && rgd != 0;
    /* A copy that lies outside is as good as none, unless the first one lies outside as well. */
    if (redundant && check_place("redundant grain directory", rgd, bytes, file_size, &out->rgd_offset, NULL))
        out->rgd_offset = 0;
    status = check_place("grain directory", gd, bytes, file_size, &out->gd_offset, err);
    if (status && out->rgd_offset) {
        out->gd_offset = 0; /* vmdk_gd_load() takes the copy */
        status = 0;
    }
    return status;
}

int vmdk_hosted_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->format = VMDK_HOSTED;
    if (imgtk_le32(header + VMDK_H_MAGIC) != VMDK_HOSTED_MAGIC)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the sparse extent does not begin with 'KDMV'");
    int status = check_version_and_flags(header, out, err);
    if (!status)
        status = check_descriptor_place(header, file_size, out, err);
    if (status)
        return status;
    uint64_t capacity = imgtk_le64(header + VMDK_H_CAPACITY);
    if (capacity == 0 && out->descriptor_length) {
        out->descriptor_only = true;
        return 0;
    }
    uint64_t grain = imgtk_le64(header + VMDK_H_GRAIN_SIZE);
    status = check_capacity(capacity, err);
    if (!status)
        status = check_grain(grain, err);
    if (status)
        return status;
    out->capacity = capacity * VMDK_SECTOR;
    out->grain = grain * VMDK_SECTOR;
    status = check_compression(header, out, err);
    return status ? status : check_tables(header, file_size, out, err);
}

static bool same_disk(const struct vmdk_sparse *a, const struct vmdk_sparse *b)
{
    return a->capacity == b->capacity && a->grain == b->grain && a->gtes_per_gt == b->gtes_per_gt &&
           a->compressed == b->compressed && a->markers == b->markers && a->zero_grains == b->zero_grains;
}

int vmdk_footer_parse(const uint8_t *sectors, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err)
{
    const uint8_t *footer = sectors + VMDK_SECTOR;
    const uint8_t *end = sectors + 2 * VMDK_SECTOR;
    if (imgtk_le32(sectors + VMDK_M_SIZE) != 0 || imgtk_le32(sectors + VMDK_M_TYPE) != VMDK_MARKER_FOOTER ||
        imgtk_le32(end + VMDK_M_SIZE) != 0 || imgtk_le32(end + VMDK_M_TYPE) != VMDK_MARKER_EOS)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file does not end in a footer and an end-of-stream marker: it was "
                          "cut off");
    struct vmdk_sparse parsed;
    int status = vmdk_hosted_parse(footer, file_size, &parsed, err);
    if (status)
        return imgtk_fail_prefix(err, "footer");
    if (parsed.descriptor_only || !same_disk(out, &parsed))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the footer does not agree with the header");
    if (parsed.tables_at_end)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the footer does not tell where the grain directory is");
    out->gd_offset = parsed.gd_offset;
    out->rgd_offset = parsed.rgd_offset;
    out->tables_at_end = false;
    return 0;
}

/* ---- COWD ------------------------------------------------------------------ */

int vmdk_cowd_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->format = VMDK_COWD;
    out->first_byte = VMDK_COWD_HEADER_SIZE;
    out->gtes_per_gt = VMDK_COWD_GTES_PER_GT;
    if (imgtk_le32(header) != VMDK_COWD_MAGIC)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the extent does not begin with 'COWD'");
    if (imgtk_le32(header + VMDK_C_VERSION) != 1)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the COWD header has version %u; supported is 1",
                          imgtk_le32(header + VMDK_C_VERSION));
    uint32_t capacity = imgtk_le32(header + VMDK_C_CAPACITY);
    uint32_t grain = imgtk_le32(header + VMDK_C_GRAIN_SIZE);
    int status = check_capacity(capacity, err);
    if (!status)
        status = check_grain(grain, err);
    if (status)
        return status;
    out->capacity = (uint64_t)capacity * VMDK_SECTOR;
    out->grain = (uint64_t)grain * VMDK_SECTOR;
    status = count_tables(out, err);
    if (status)
        return status;
    if (imgtk_le32(header + VMDK_C_GD_ENTRIES) < out->gd_entries)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the grain directory has %u entries; the capacity needs %llu",
                          imgtk_le32(header + VMDK_C_GD_ENTRIES), (unsigned long long)out->gd_entries);
    return check_place("grain directory", imgtk_le32(header + VMDK_C_GD_OFFSET), out->gd_entries * 4, file_size,
                       &out->gd_offset, err);
}

/* ---- seSparse --------------------------------------------------------------- */

static int check_sesparse_constants(const uint8_t *header, struct imgtk_error *err)
{
    if (imgtk_le64(header + VMDK_S_MAGIC) != VMDK_SE_MAGIC)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the extent does not begin with seSparse's signature");
    if (imgtk_le64(header + VMDK_S_VERSION) != VMDK_SE_VERSION)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the seSparse header has version 0x%llx; supported is 0x%llx",
                          (unsigned long long)imgtk_le64(header + VMDK_S_VERSION),
                          (unsigned long long)VMDK_SE_VERSION);
    if (imgtk_le64(header + VMDK_S_GRAIN_SIZE) != VMDK_SE_GRAIN_SECTORS ||
        imgtk_le64(header + VMDK_S_GT_SIZE) != VMDK_SE_GT_SECTORS)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "seSparse grains of %llu and grain tables of %llu sectors; "
                          "supported are %u and %u", (unsigned long long)imgtk_le64(header + VMDK_S_GRAIN_SIZE),
                          (unsigned long long)imgtk_le64(header + VMDK_S_GT_SIZE), VMDK_SE_GRAIN_SECTORS,
                          VMDK_SE_GT_SECTORS);
    if (imgtk_le64(header + VMDK_S_FLAGS) != 0)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the seSparse header has the unknown flags 0x%llx",
                          (unsigned long long)imgtk_le64(header + VMDK_S_FLAGS));
    return 0;
}

int vmdk_sesparse_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->format = VMDK_SESPARSE;
    out->first_byte = VMDK_SE_HEADER_SIZE;
    out->gtes_per_gt = VMDK_SE_GTES_PER_GT;
    out->grain = VMDK_SE_GRAIN_SECTORS * VMDK_SECTOR;
    uint64_t capacity = imgtk_le64(header + VMDK_S_CAPACITY);
    int status = check_sesparse_constants(header, err);
    if (!status)
        status = check_capacity(capacity, err);
    if (status)
        return status;
    out->capacity = capacity * VMDK_SECTOR;
    status = count_tables(out, err);
    if (status)
        return status;
    uint64_t gd_sectors = imgtk_le64(header + VMDK_S_GD_SIZE);
    if (gd_sectors < imgtk_div_round_up(out->gd_entries * 8, VMDK_SECTOR))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the grain directory of %llu sectors is too small for %llu entries",
                          (unsigned long long)gd_sectors, (unsigned long long)out->gd_entries);
    status = check_place("grain directory", imgtk_le64(header + VMDK_S_GD_OFFSET), out->gd_entries * 8, file_size,
                         &out->gd_offset, err);
    uint64_t tables = imgtk_le64(header + VMDK_S_GT_TOTAL);
    if (!status && tables > file_size / VMDK_SECTOR)
        status = imgtk_fail(err, IMGTK_ECORRUPT, "grain tables of %llu sectors do not fit into the file",
                            (unsigned long long)tables);
    out->tables_length = tables * VMDK_SECTOR;
    if (!status)
        status = check_place("grain table area", imgtk_le64(header + VMDK_S_GT_OFFSET), out->tables_length, file_size,
                             &out->tables_offset, err);
    /* The grains of an image without data may begin where the file ends. */
    return status ? status : check_place("grain area", imgtk_le64(header + VMDK_S_GRAINS_OFFSET), 0, file_size,
                                         &out->grains_offset, err);
}

/* ---- From a file ------------------------------------------------------------ */

static int read_footer(struct imgtk_storage *file, uint64_t file_size, struct vmdk_sparse *out,
                       struct imgtk_error *err)
{
    uint8_t sectors[3 * VMDK_SECTOR];
    if (file_size < sizeof(sectors))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file of %llu bytes is too short for its footer",
                          (unsigned long long)file_size);
    int status = imgtk_storage_pread(file, sectors, sizeof(sectors), file_size - sizeof(sectors), err);
    return status ? status : vmdk_footer_parse(sectors, file_size, out, err);
}

/* What the journal holds was not yet applied; without it the tables may be of two times. */
static int check_sesparse_journal(struct imgtk_storage *file, const uint8_t *header, struct imgtk_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    uint64_t offset = imgtk_le64(header + VMDK_S_VOLATILE_OFFSET);
    if (offset > VMDK_MAX_SIZE / VMDK_SECTOR)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the volatile header at sector %llu lies outside the file",
                          (unsigned long long)offset);
    int status = imgtk_storage_pread(file, sector, sizeof(sector), offset * VMDK_SECTOR, err);
    if (status)
        return status;
    if (imgtk_le64(sector + VMDK_SV_MAGIC) != VMDK_SE_VOLATILE_MAGIC)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the volatile header has no valid signature");
    if (sector[VMDK_SV_REPLAY] != 0)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the seSparse extent has a journal that must be replayed first");
    return 0;
}

int vmdk_sparse_read(struct imgtk_storage *file, uint64_t file_size, enum vmdk_sparse_format format,
                     struct vmdk_sparse *out, struct imgtk_error *err)
{
    uint8_t header[VMDK_COWD_HEADER_SIZE];
    size_t length = format == VMDK_COWD ? VMDK_COWD_HEADER_SIZE : VMDK_SECTOR;
    int status = imgtk_storage_pread(file, header, length, 0, err);
    if (status)
        return status;
    if (format == VMDK_COWD)
        return vmdk_cowd_parse(header, file_size, out, err);
    if (format == VMDK_SESPARSE) {
        status = vmdk_sesparse_parse(header, file_size, out, err);
        return status ? status : check_sesparse_journal(file, header, err);
    }
    status = vmdk_hosted_parse(header, file_size, out, err);
    if (!status && out->tables_at_end)
        status = read_footer(file, file_size, out, err);
    return status;
}
