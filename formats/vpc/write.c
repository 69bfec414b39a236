/* Writing to a file: blocks are appended in the order of the guest, all tables come last. */
#include <string.h>

#include "../common/sparse.h"
#include "vpc.h"

/* ---- One block ------------------------------------------------------------ */

void vpc_bitmap_fill(uint8_t bitmap[VPC_SECTOR], const uint8_t *data, size_t length, bool full)
{
    memset(bitmap, full ? 0xff : 0, VPC_SECTOR);
    for (size_t at = 0; !full && at < length; at += SPARSE_PIECE) {
        size_t piece = length - at < SPARSE_PIECE ? length - at : SPARSE_PIECE;
        if (!imgtk_is_zero(data + at, piece))
            bitmap[at / SPARSE_PIECE] = 0xff; /* a piece is 8 sectors */
    }
}

static int write_block(struct vpc_writer *vpc, uint64_t host, const uint8_t *data, size_t length,
                       struct imgtk_error *err)
{
    uint8_t bitmap[VPC_SECTOR];
    vpc_bitmap_fill(bitmap, data, length, vpc->full);
    int status = imgtk_storage_pwrite(vpc->file, bitmap, sizeof(bitmap), host, err);
    host += sizeof(bitmap);
    if (!status && vpc->zeroed && !vpc->full)
        return sparse_pwrite(vpc->file, data, length, host, err);
    if (!status)
        status = imgtk_storage_pwrite(vpc->file, data, length, host, err);
    if (!status && length < VPC_BLOCK_SIZE)
        status = imgtk_storage_zero(vpc->file, host + length, VPC_BLOCK_SIZE - length, 0, err);
    return status;
}

static int zero_block(struct vpc_writer *vpc, uint64_t host, struct imgtk_error *err)
{
    uint8_t bitmap[VPC_SECTOR];
    memset(bitmap, 0xff, sizeof(bitmap));
    int status = imgtk_storage_pwrite(vpc->file, bitmap, sizeof(bitmap), host, err);
    if (!status)
        status = imgtk_storage_zero(vpc->file, host + VPC_SECTOR, VPC_BLOCK_SIZE, IMGTK_ZERO_ALLOCATE, err);
    return status;
}

/* ---- Allocation ----------------------------------------------------------- */

/* Gives the blocks of a range their places; only this part needs the turn. */
static int allocate(struct vpc_writer *vpc, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                    uint64_t *host, struct imgtk_error *err)
{
    uint64_t first = offset / VPC_BLOCK_SIZE, count = imgtk_div_round_up(length, VPC_BLOCK_SIZE);
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    *host = vpc->layout.data_start + vpc->allocated * vpc->layout.stride;
    for (uint64_t i = 0; i < count; i++)
        imgtk_put_be32(vpc->table + (first + i) * 4, (uint32_t)((*host + i * vpc->layout.stride) / VPC_SECTOR));
    vpc->allocated += (uint32_t)count;
    imgtk_turn_end(turn);
    return 0;
}

static int write_dynamic(struct vpc_writer *vpc, const struct imgtk_write *write, struct imgtk_error *err)
{
    uint64_t host;
    int status = allocate(vpc, write->offset, write->length, write->turn, &host, err);
    for (size_t at = 0; !status && at < write->length; at += VPC_BLOCK_SIZE) {
        size_t length = (size_t)imgtk_min_u64(write->length - at, VPC_BLOCK_SIZE);
        status = write_block(vpc, host, (const uint8_t *)write->buf + at, length, err);
        host += vpc->layout.stride;
    }
    return status;
}

static int zero_dynamic(struct vpc_writer *vpc, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                        struct imgtk_error *err)
{
    uint64_t host;
    int status = allocate(vpc, offset, length, turn, &host, err);
    for (uint64_t at = 0; !status && at < length; at += VPC_BLOCK_SIZE) {
        status = zero_block(vpc, host, err);
        host += vpc->layout.stride;
    }
    return status;
}

/* ---- Ops ------------------------------------------------------------------ */

int vpc_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct vpc_writer *vpc = writer;
    if (vpc->stream)
        return vpc_stream_write(vpc, write, err);
    if (vpc->footer.type == VPC_FIXED)
        return imgtk_storage_pwrite(vpc->file, write->buf, write->length, write->offset, err);
    return write_dynamic(vpc, write, err);
}

int vpc_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct vpc_writer *vpc = writer;
    if (vpc->stream) /* what is not written goes out as zeroes anyway */
        return 0;
    if (vpc->footer.type == VPC_FIXED)
        return imgtk_storage_zero(vpc->file, offset, length, vpc->full ? IMGTK_ZERO_ALLOCATE : 0u, err);
    return vpc->full ? zero_dynamic(vpc, offset, length, turn, err) : 0;
}

int vpc_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err)
{
    struct vpc_writer *vpc = writer;
    if (vpc->stream || vpc->footer.type != VPC_FIXED)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the blocks of a dynamic VHD do not follow each other plainly");
    *file = vpc->file;
    *host_offset = write->offset;
    return 0;
}

static int write_tables(struct vpc_writer *vpc, struct imgtk_error *err)
{
    uint8_t header[VPC_HEADER_SIZE];
    vpc_encode_header(&vpc->layout, header);
    int status = 0;
    if (vpc->layout.table_size)
        status = imgtk_storage_pwrite(vpc->file, vpc->table, vpc->layout.table_size,
                                      vpc->footer.data_offset + VPC_HEADER_SIZE, err);
    return status ? status : imgtk_storage_pwrite(vpc->file, header, sizeof(header), vpc->footer.data_offset, err);
}

/* The source may be shorter than the disk, which was rounded up to a geometry; a device has old bytes there. */
static int clear_tail(struct vpc_writer *vpc, struct imgtk_error *err)
{
    uint64_t tail = vpc->layout.size - vpc->source_size;
    return vpc->zeroed || !tail ? 0 : imgtk_storage_zero(vpc->file, vpc->source_size, tail, 0, err);
}

static int end_of_file(const struct vpc_writer *vpc, uint64_t *out, struct imgtk_error *err)
{
    bool fixed = vpc->footer.type == VPC_FIXED;
    uint64_t end = fixed ? vpc->layout.size : vpc_layout_data_end(&vpc->layout, vpc->allocated);
    *out = vpc->device ? vpc->device_size - VPC_FOOTER_SIZE : end;
    if (*out < end)
        return imgtk_fail(err, IMGTK_ENOSPACE, "the target has %llu bytes, the image needs %llu",
                          (unsigned long long)vpc->device_size, (unsigned long long)(end + VPC_FOOTER_SIZE));
    return 0;
}

/* The footers are what makes the file a VHD. */
int vpc_finish(void *writer, struct imgtk_error *err)
{
    struct vpc_writer *vpc = writer;
    bool fixed = vpc->footer.type == VPC_FIXED;
    uint8_t footer[VPC_FOOTER_SIZE];
    uint64_t end;
    if (vpc->stream)
        return vpc_stream_finish(vpc, err);
    int status = end_of_file(vpc, &end, err);
    if (!status)
        status = fixed ? clear_tail(vpc, err) : write_tables(vpc, err);
    if (!status && !vpc->device)
        status = imgtk_storage_truncate(vpc->file, end, err);
    vpc_footer_encode(&vpc->footer, footer);
    if (!status)
        status = imgtk_storage_pwrite(vpc->file, footer, sizeof(footer), end, err);
    if (!status && !fixed)
        status = imgtk_storage_pwrite(vpc->file, footer, sizeof(footer), 0, err);
    return status;
}
