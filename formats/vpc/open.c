/* Opening: the footer from whichever end has a good one, the dynamic header, and whether they fit the file. */
#include <stdlib.h>
#include <string.h>

#include "vpc.h"

/* ---- Footers -------------------------------------------------------------- */

struct ends {
    struct vpc_footer front, end;
    bool front_cookie, end_cookie;
    int front_status, end_status;
    struct imgtk_error front_error, end_error;
    uint64_t end_offset;
};

static int read_front(struct vpc *vpc, struct ends *ends, struct imgtk_error *err)
{
    uint8_t bytes[VPC_FOOTER_SIZE] = { 0 };
    size_t done;
    int status = imgtk_storage_pread_some(vpc->file, bytes, sizeof(bytes), 0, &done, err);
    if (status)
        return status;
    ends->front_cookie = vpc_footer_has_cookie(bytes);
    ends->front_status = vpc_footer_parse(bytes, &ends->front, &ends->front_error);
    return 0;
}

/* The footer takes the last 512 bytes, or the last 511 in very old images; the 512th is a zero there. */
static int read_end(struct vpc *vpc, struct ends *ends, struct imgtk_error *err)
{
    static const uint32_t sizes[] = { VPC_FOOTER_SIZE, VPC_OLD_FOOTER_SIZE };
    ends->end_status = imgtk_fail(&ends->end_error, IMGTK_ECORRUPT, "there is no VHD footer");
    for (size_t i = 0; i < 2 && !ends->end_cookie; i++) {
        uint8_t bytes[VPC_FOOTER_SIZE] = { 0 };
        if (vpc->file_size < sizes[i])
            continue;
        ends->end_offset = vpc->file_size - sizes[i];
        int status = imgtk_storage_pread(vpc->file, bytes, sizes[i], ends->end_offset, err);
        if (status)
            return status;
        ends->end_cookie = vpc_footer_has_cookie(bytes);
        ends->end_status = vpc_footer_parse(bytes, &ends->end, &ends->end_error);
    }
    return 0;
}

/* Two good footers that describe different disks are two images in one file: which one was meant is a guess. */
static int compare_ends(const struct ends *ends, struct imgtk_error *err)
{
    const struct vpc_footer *front = &ends->front, *end = &ends->end;
    if (front->type == end->type && front->current_size == end->current_size &&
        memcmp(front->uuid, end->uuid, UUID_SIZE) == 0)
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT,
                      "the footers at the front and at the end describe different disks "
                      "(types %u and %u, sizes %llu and %llu)",
                      (unsigned)front->type, (unsigned)end->type, (unsigned long long)front->current_size,
                      (unsigned long long)end->current_size);
}

static int choose_footer(struct vpc *vpc, const struct ends *ends, struct imgtk_error *err)
{
    if (!ends->front_status && ends->front.type != VPC_FIXED) {
        vpc->footer = ends->front;
        vpc->no_end_footer = ends->end_status != 0;
        return vpc->no_end_footer ? 0 : compare_ends(ends, err);
    }
    if (!ends->end_status) {
        vpc->footer = ends->end;
        vpc->recovered = ends->end.type != VPC_FIXED;
        return 0;
    }
    if (ends->end_cookie)
        return imgtk_fail(err, ends->end_status, "%s", ends->end_error.message);
    if (!ends->front_cookie)
        return imgtk_fail(err, IMGTK_ECORRUPT, "there is no VHD footer at either end of the file");
    if (ends->front_status)
        return imgtk_fail(err, ends->front_status, "%s", ends->front_error.message);
    return imgtk_fail(err, IMGTK_ECORRUPT, "a fixed disk without its footer at the end of the file: is it truncated?");
}

static int load_footer(struct vpc *vpc, enum vpc_size_rule rule, struct imgtk_error *err)
{
    struct ends *ends = calloc(1, sizeof(*ends));
    if (!ends)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = read_front(vpc, ends, err);
    if (!status)
        status = read_end(vpc, ends, err);
    if (!status)
        status = choose_footer(vpc, ends, err);
    if (!status) {
        vpc->size = vpc_footer_size(&vpc->footer, rule);
        if (vpc->size > VPC_MAX_SIZE)
            status = imgtk_fail(err, IMGTK_ELIMIT, "the disk has %llu bytes; at most %llu (2040 GiB) are supported",
                                (unsigned long long)vpc->size, (unsigned long long)VPC_MAX_SIZE);
        else if (vpc->footer.type == VPC_FIXED && vpc->size > ends->end_offset)
            status = imgtk_fail(err, IMGTK_ECORRUPT, "the disk has %llu bytes, but its footer begins at byte %llu",
                                (unsigned long long)vpc->size, (unsigned long long)ends->end_offset);
    }
    free(ends);
    return status;
}

/* ---- Dynamic header ------------------------------------------------------- */

static int check_table(struct vpc *vpc, struct imgtk_error *err)
{
    uint64_t blocks = imgtk_div_round_up(vpc->size, vpc->header.block_size);
    if (blocks > vpc->header.entries)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the block table has %u entries, the disk takes %llu",
                          vpc->header.entries, (unsigned long long)blocks);
    if (blocks > VPC_MAX_BLOCKS)
        return imgtk_fail(err, IMGTK_ELIMIT, "the disk takes %llu blocks of %u bytes; at most %u are supported",
                          (unsigned long long)blocks, vpc->header.block_size, VPC_MAX_BLOCKS);
    if (!imgtk_range_fits(vpc->header.table_offset, blocks * 4, vpc->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the block table of %llu bytes at %llu does not fit the file's %llu",
                          (unsigned long long)(blocks * 4), (unsigned long long)vpc->header.table_offset,
                          (unsigned long long)vpc->file_size);
    vpc->blocks = (uint32_t)blocks;
    return 0;
}

static int load_header(struct vpc *vpc, struct imgtk_error *err)
{
    uint8_t bytes[VPC_HEADER_SIZE];
    if (!imgtk_range_fits(vpc->footer.data_offset, sizeof(bytes), vpc->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the dynamic disk header at %llu is beyond the file's %llu bytes",
                          (unsigned long long)vpc->footer.data_offset, (unsigned long long)vpc->file_size);
    int status = imgtk_storage_pread(vpc->file, bytes, sizeof(bytes), vpc->footer.data_offset, err);
    if (!status)
        status = vpc_header_parse(bytes, &vpc->header, err);
    if (!status)
        status = check_table(vpc, err);
    if (status)
        return status;
    while (UINT32_C(1) << vpc->block_bits < vpc->header.block_size)
        vpc->block_bits++;
    uint32_t sectors = vpc->header.block_size / VPC_SECTOR;
    vpc->bitmap_size = (uint32_t)imgtk_round_up(imgtk_div_round_up(sectors, 8), VPC_SECTOR);
    return vpc_bat_open(vpc, err);
}

static int refuse_fault(void *context, const struct imgtk_error *fault)
{
    return imgtk_fail(context, fault->status, "%s", fault->message);
}

static int load_dynamic(struct vpc *vpc, uint32_t flags, struct imgtk_error *err)
{
    int status = load_header(vpc, err);
    if (!status && !(flags & IMGTK_OPEN_CHECK)) {
        struct vpc_scan scan;
        status = vpc_bat_scan(vpc, refuse_fault, err, &scan, err);
    }
    if (!status && vpc->footer.type == VPC_DIFFERENCING)
        status = vpc_load_parents(vpc, err);
    return status;
}

/* ---- Ops ------------------------------------------------------------------ */

static int load(struct vpc *vpc, const struct imgtk_open *args, struct imgtk_error *err)
{
    int status = imgtk_storage_size(vpc->file, &vpc->file_size, err);
    if (!status)
        status = load_footer(vpc, vpc_options_size_rule(args->opts), err);
    if (!status && vpc->footer.type != VPC_FIXED)
        status = load_dynamic(vpc, args->flags, err);
    return status;
}

int vpc_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    if (args->snapshot)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VHD images have no internal snapshots");
    struct vpc *vpc = calloc(1, sizeof(*vpc));
    if (!vpc)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    vpc->file = args->file;
    vpc->no_references = (args->flags & IMGTK_OPEN_NO_REFERENCES) != 0;
    int status = load(vpc, args, err);
    if (status) {
        vpc_close(vpc);
        return status;
    }
    *handle = vpc;
    return 0;
}

void vpc_close(void *handle)
{
    struct vpc *vpc = handle;
    if (vpc->bat)
        imgtk_cache_free(vpc->bat);
    if (vpc->bitmaps)
        imgtk_cache_free(vpc->bitmaps);
    for (size_t i = 0; i < IMGTK_BACKING_NAMES; i++)
        free(vpc->parents[i]);
    free(vpc);
}
