/* Writing to a pipe: the plan tells which blocks will come, so the table can go out before them. */
#include <string.h>

#include "vpc.h"

#define TABLE_PIECE 4096u

static int put(struct vpc_writer *vpc, const void *bytes, size_t length, struct imgtk_error *err)
{
    int status = imgtk_storage_pwrite(vpc->file, bytes, length, vpc->position, err);
    vpc->position += length;
    return status;
}

static int put_zeroes(struct vpc_writer *vpc, uint64_t length, struct imgtk_error *err)
{
    static const uint8_t zeroes[65536];
    int status = 0;
    while (!status && length > 0) {
        size_t piece = (size_t)imgtk_min_u64(length, sizeof(zeroes));
        status = put(vpc, zeroes, piece, err);
        length -= piece;
    }
    return status;
}

static int put_zeroes_to(struct vpc_writer *vpc, uint64_t position, struct imgtk_error *err)
{
    return put_zeroes(vpc, position - vpc->position, err);
}

static int put_footer(struct vpc_writer *vpc, struct imgtk_error *err)
{
    uint8_t footer[VPC_FOOTER_SIZE];
    vpc_footer_encode(&vpc->footer, footer);
    return put(vpc, footer, sizeof(footer), err);
}

/* ---- The table ------------------------------------------------------------ */

/* The table on its way out, a piece at a time. */
struct table_out {
    uint8_t bytes[TABLE_PIECE];
    size_t used;
};

static int put_entry(struct vpc_writer *vpc, struct table_out *table, uint32_t entry, struct imgtk_error *err)
{
    imgtk_put_be32(table->bytes + table->used, entry);
    table->used += 4;
    if (table->used < sizeof(table->bytes))
        return 0;
    table->used = 0;
    return put(vpc, table->bytes, sizeof(table->bytes), err);
}

static int put_entries(struct vpc_writer *vpc, struct table_out *table, uint64_t from, uint64_t to, bool allocated,
                       struct imgtk_error *err)
{
    int status = 0;
    for (; !status && from < to; from++) {
        uint64_t host = vpc->layout.data_start + vpc->allocated * vpc->layout.stride;
        status = put_entry(vpc, table, allocated ? (uint32_t)(host / VPC_SECTOR) : VPC_UNALLOCATED, err);
        vpc->allocated += allocated;
    }
    return status;
}

static int next_run(struct vpc_writer *vpc, uint64_t offset, uint64_t *start, uint64_t *length,
                    struct imgtk_error *err)
{
    *length = 0;
    return vpc->plan ? imgtk_plan_next(vpc->plan, VPC_BLOCK_SIZE, offset, start, length, err) : 0;
}

static int put_table(struct vpc_writer *vpc, struct imgtk_error *err)
{
    struct table_out table = { .used = 0 };
    uint64_t block = 0, offset = 0, start, length;
    int status = next_run(vpc, offset, &start, &length, err);
    while (!status && length > 0) {
        uint64_t first = start / VPC_BLOCK_SIZE, end = imgtk_div_round_up(start + length, VPC_BLOCK_SIZE);
        status = put_entries(vpc, &table, block, first, false, err);
        if (!status)
            status = put_entries(vpc, &table, first, end, true, err);
        block = end;
        offset = end * VPC_BLOCK_SIZE;
        if (!status)
            status = next_run(vpc, offset, &start, &length, err);
    }
    if (!status)
        status = put_entries(vpc, &table, block, vpc->layout.table_size / 4, false, err);
    return !status && table.used ? put(vpc, table.bytes, table.used, err) : status;
}

/* ---- Blocks --------------------------------------------------------------- */

/* Sets next_block to the first planned block at or after offset, which is where a block begins. */
static int find_block(struct vpc_writer *vpc, uint64_t offset, struct imgtk_error *err)
{
    uint64_t start, length;
    vpc->next_block = offset;
    if (offset < vpc->run_end)
        return 0;
    int status = next_run(vpc, offset, &start, &length, err);
    vpc->next_block = length ? start : UINT64_MAX;
    vpc->run_end = length ? start + length : UINT64_MAX;
    return status;
}

static int put_block(struct vpc_writer *vpc, const uint8_t *data, size_t length, struct imgtk_error *err)
{
    uint8_t bitmap[VPC_SECTOR];
    uint64_t host = vpc->layout.data_start + vpc->allocated * vpc->layout.stride;
    vpc_bitmap_fill(bitmap, data, length, vpc->full);
    int status = put_zeroes_to(vpc, host, err);
    if (!status)
        status = put(vpc, bitmap, sizeof(bitmap), err);
    if (!status && length)
        status = put(vpc, data, length, err);
    if (!status)
        status = put_zeroes(vpc, VPC_BLOCK_SIZE - length, err);
    vpc->allocated++;
    return status ? status : find_block(vpc, vpc->next_block + VPC_BLOCK_SIZE, err);
}

/* Blocks that were planned and turned out to be zeroes have their place in the table all the same. */
static int put_empty_blocks(struct vpc_writer *vpc, uint64_t until, struct imgtk_error *err)
{
    int status = 0;
    while (!status && vpc->next_block < until)
        status = put_block(vpc, NULL, 0, err);
    return status;
}

static int put_dynamic(struct vpc_writer *vpc, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = put_empty_blocks(vpc, write->offset, err);
    for (size_t at = 0; !status && at < write->length; at += VPC_BLOCK_SIZE) {
        if (vpc->next_block != write->offset + at)
            return imgtk_fail(err, IMGTK_EINVAL, "a write at %llu that was not planned",
                              (unsigned long long)(write->offset + at));
        size_t length = (size_t)imgtk_min_u64(write->length - at, VPC_BLOCK_SIZE);
        status = put_block(vpc, (const uint8_t *)write->buf + at, length, err);
    }
    return status;
}

static int put_fixed(struct vpc_writer *vpc, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = put_zeroes_to(vpc, write->offset, err);
    return status ? status : put(vpc, write->buf, write->length, err);
}

/* ---- Operations ----------------------------------------------------------- */

int vpc_stream_begin(struct vpc_writer *vpc, struct imgtk_error *err)
{
    if (vpc->footer.type == VPC_FIXED)
        return 0;
    uint8_t header[VPC_HEADER_SIZE];
    vpc_encode_header(&vpc->layout, header);
    int status = put_footer(vpc, err);
    if (!status)
        status = put(vpc, header, sizeof(header), err);
    if (!status)
        status = put_table(vpc, err);
    vpc->allocated = 0; /* counted again as the blocks go out */
    return status ? status : find_block(vpc, 0, err);
}

int vpc_stream_write(struct vpc_writer *vpc, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(write->turn, err);
    if (!status)
        status = vpc->footer.type == VPC_FIXED ? put_fixed(vpc, write, err) : put_dynamic(vpc, write, err);
    imgtk_turn_end(write->turn);
    return status;
}

int vpc_stream_finish(struct vpc_writer *vpc, struct imgtk_error *err)
{
    int status = vpc->footer.type == VPC_FIXED ? put_zeroes_to(vpc, vpc->layout.size, err)
                                               : put_empty_blocks(vpc, UINT64_MAX, err);
    return status ? status : put_footer(vpc, err);
}
