/* Writing to a pipe: the plan tells which blocks will come, so header and table can go out before them. */
#include <string.h>

#include "vdi.h"

#define TABLE_PIECE 4096u

static int put(struct vdi_writer *vdi, const void *bytes, size_t length, struct imgtk_error *err)
{
    int status = imgtk_storage_pwrite(vdi->file, bytes, length, vdi->position, err);
    vdi->position += length;
    return status;
}

static int put_zeroes_to(struct vdi_writer *vdi, uint64_t position, struct imgtk_error *err)
{
    static const uint8_t zeroes[65536];
    int status = 0;
    while (!status && vdi->position < position) {
        size_t piece = (size_t)imgtk_min_u64(position - vdi->position, sizeof(zeroes));
        status = put(vdi, zeroes, piece, err);
    }
    return status;
}

static int next_run(struct vdi_writer *vdi, uint64_t offset, uint64_t *start, uint64_t *length,
                    struct imgtk_error *err)
{
    *length = 0;
    return vdi->plan ? imgtk_plan_next(vdi->plan, VDI_BLOCK_SIZE, offset, start, length, err) : 0;
}

/* ---- Header and table ------------------------------------------------------ */

static int put_header(struct vdi_writer *vdi, struct imgtk_error *err)
{
    uint8_t header[VDI_HEADER_BYTES];
    int status = 0;
    vdi->header.blocks_allocated = vdi->header.blocks;
    if (vdi->header.type == VDI_DYNAMIC)
        status = vdi_count_planned(vdi->plan, &vdi->header.blocks_allocated, err);
    vdi_header_encode(&vdi->header, header);
    return status ? status : put(vdi, header, sizeof(header), err);
}

/* The table on its way out, a piece at a time. */
struct table_out {
    uint8_t bytes[TABLE_PIECE];
    size_t used;
};

static int put_entries(struct vdi_writer *vdi, struct table_out *table, uint64_t count, bool allocated,
                       struct imgtk_error *err)
{
    for (uint64_t i = 0; i < count; i++) {
        imgtk_put_le32(table->bytes + table->used, allocated ? vdi->allocated++ : VDI_FREE);
        table->used += 4;
        if (table->used < sizeof(table->bytes))
            continue;
        table->used = 0;
        int status = put(vdi, table->bytes, sizeof(table->bytes), err);
        if (status)
            return status;
    }
    return 0;
}

static int put_planned(struct vdi_writer *vdi, struct table_out *table, struct imgtk_error *err)
{
    uint64_t block = 0, start, length;
    int status = next_run(vdi, 0, &start, &length, err);
    while (!status && length > 0) {
        uint64_t first = start / VDI_BLOCK_SIZE, end = imgtk_div_round_up(start + length, VDI_BLOCK_SIZE);
        status = put_entries(vdi, table, first - block, false, err);
        if (!status)
            status = put_entries(vdi, table, end - first, true, err);
        block = end;
        if (!status)
            status = next_run(vdi, end * VDI_BLOCK_SIZE, &start, &length, err);
    }
    return status ? status : put_entries(vdi, table, vdi->header.blocks - block, false, err);
}

static int put_table(struct vdi_writer *vdi, struct imgtk_error *err)
{
    struct table_out table = { .used = 0 };
    int status = vdi->header.type == VDI_STATIC ? put_entries(vdi, &table, vdi->header.blocks, true, err)
                                                : put_planned(vdi, &table, err);
    return !status && table.used ? put(vdi, table.bytes, table.used, err) : status;
}

/* ---- Blocks --------------------------------------------------------------- */

/* Sets next_block to the first planned block at or after offset, which is where a block begins. */
static int find_block(struct vdi_writer *vdi, uint64_t offset, struct imgtk_error *err)
{
    uint64_t start, length;
    vdi->next_block = offset;
    if (offset < vdi->run_end)
        return 0;
    int status = next_run(vdi, offset, &start, &length, err);
    vdi->next_block = length ? start : UINT64_MAX;
    vdi->run_end = length ? start + length : UINT64_MAX;
    return status;
}

static int put_block(struct vdi_writer *vdi, const uint8_t *data, size_t length, struct imgtk_error *err)
{
    uint64_t host = vdi_data_end(&vdi->header, vdi->allocated);
    int status = put_zeroes_to(vdi, host, err);
    if (!status && length)
        status = put(vdi, data, length, err);
    if (!status)
        status = put_zeroes_to(vdi, host + VDI_BLOCK_SIZE, err);
    vdi->allocated++;
    return status ? status : find_block(vdi, vdi->next_block + VDI_BLOCK_SIZE, err);
}

/* Blocks that were planned and turned out to be zeroes have their place in the table all the same. */
static int put_empty_blocks(struct vdi_writer *vdi, uint64_t until, struct imgtk_error *err)
{
    int status = 0;
    while (!status && vdi->next_block < until)
        status = put_block(vdi, NULL, 0, err);
    return status;
}

static int put_dynamic(struct vdi_writer *vdi, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = put_empty_blocks(vdi, write->offset, err);
    for (size_t at = 0; !status && at < write->length; at += VDI_BLOCK_SIZE) {
        if (vdi->next_block != write->offset + at)
            return imgtk_fail(err, IMGTK_EINVAL, "a write at %llu that was not planned",
                              (unsigned long long)(write->offset + at));
        size_t length = (size_t)imgtk_min_u64(write->length - at, VDI_BLOCK_SIZE);
        status = put_block(vdi, (const uint8_t *)write->buf + at, length, err);
    }
    return status;
}

static int put_static(struct vdi_writer *vdi, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = put_zeroes_to(vdi, vdi->header.data_offset + write->offset, err);
    return status ? status : put(vdi, write->buf, write->length, err);
}

/* ---- Operations ----------------------------------------------------------- */

int vdi_stream_begin(struct vdi_writer *vdi, struct imgtk_error *err)
{
    int status = put_header(vdi, err);
    if (!status)
        status = put_table(vdi, err);
    vdi->allocated = 0; /* counted again as the blocks go out */
    if (!status && vdi->header.type == VDI_DYNAMIC)
        status = find_block(vdi, 0, err);
    return status;
}

int vdi_stream_write(struct vdi_writer *vdi, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(write->turn, err);
    if (!status)
        status = vdi->header.type == VDI_STATIC ? put_static(vdi, write, err) : put_dynamic(vdi, write, err);
    imgtk_turn_end(write->turn);
    return status;
}

int vdi_stream_finish(struct vdi_writer *vdi, struct imgtk_error *err)
{
    if (vdi->header.type == VDI_DYNAMIC) {
        int status = put_empty_blocks(vdi, UINT64_MAX, err);
        if (status)
            return status;
    }
    return put_zeroes_to(vdi, vdi_data_end(&vdi->header, vdi->header.blocks_allocated), err);
}
