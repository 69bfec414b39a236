#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

int vhdx_plan_blocks(struct imgtk_plan *plan, const struct vhdx_layout *layout, uint32_t *blocks, uint64_t *count,
                     struct imgtk_error *err)
{
    uint64_t offset = 0, start, length;
    *count = 0;
    if (!plan)
        return 0;
    for (;;) {
        int status = imgtk_plan_next(plan, layout->block_size, offset, &start, &length, err);
        if (status || length == 0)
            return status;
        uint64_t last = (start + length - 1) / layout->block_size;
        for (uint64_t block = start / layout->block_size; block <= last && block < layout->block_count; block++) {
            ++*count;
            if (blocks)
                blocks[block] = (uint32_t)*count;
        }
        offset = start + length;
    }
}

static int create_blocks(struct vhdx_writer *writer, struct imgtk_plan *plan, struct imgtk_error *err)
{
    if (writer->layout.fixed) {
        writer->allocated = writer->layout.block_count;
        return 0;
    }
    /* Pages of it come into being with the blocks that are written. */
    writer->blocks = calloc((size_t)writer->layout.block_count + 1, sizeof(*writer->blocks));
    if (!writer->blocks)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the block allocation table");
    if (!writer->stream)
        return 0;
    return vhdx_plan_blocks(plan, &writer->layout, writer->blocks, &writer->allocated, err);
}

/* The whole head of the file, in order: what a pipe needs before the first block. */
static int begin_stream(struct vhdx_writer *writer, struct imgtk_error *err)
{
    uint8_t *section = calloc(1, VHDX_SECTION_SIZE);
    if (!section)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the headers");
    vhdx_build_section(section, &writer->layout, &writer->identity);
    int status = imgtk_storage_pwrite(writer->file, section, VHDX_SECTION_SIZE, 0, err);
    free(section);
    if (!status)
        status = imgtk_storage_zero(writer->file, writer->layout.log_offset, writer->layout.log_length, 0, err);
    writer->position = writer->layout.data_offset;
    return status ? status : vhdx_write_tables(writer, err);
}

/* Old content must not pass for an image meanwhile. What of the disk is zero, core says: see vhdx_zero(). */
static int begin_file(struct vhdx_writer *writer, bool empty, struct imgtk_error *err)
{
    const struct vhdx_layout *layout = &writer->layout;
    uint64_t end = layout->data_offset + (layout->fixed ? layout->block_count * layout->block_size : 0);
    int status = 0;
    if (!writer->reads_zero)
        status = imgtk_storage_zero(writer->file, 0, empty ? end : layout->data_offset, 0, err);
    if (!status && !(imgtk_storage_flags(writer->file) & IMGTK_STORAGE_FIXED_SIZE))
        status = imgtk_storage_truncate(writer->file, end, err);
    return status;
}

static int create_steps(struct vhdx_writer *writer, struct imgtk_create *args, struct imgtk_error *err)
{
    int status = vhdx_layout_from(args->size, args->opts, &writer->layout, err);
    if (!status)
        status = vhdx_identity_from(writer->layout.size, args->opts, &writer->identity, err);
    if (!status)
        status = create_blocks(writer, args->plan, err);
    if (!status)
        status = writer->stream ? begin_stream(writer, err)
                                : begin_file(writer, args->flags & IMGTK_CREATE_EMPTY, err);
    return status;
}

int vhdx_create(struct imgtk_create *args, void **out, struct imgtk_error *err)
{
    struct vhdx_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a new image");
    writer->file = args->file;
    writer->stream = args->flags & IMGTK_CREATE_STREAM;
    writer->full = args->flags & IMGTK_CREATE_FULL;
    writer->reads_zero = imgtk_storage_flags(args->file) & IMGTK_STORAGE_READS_ZERO;
    args->unit = VHDX_WRITE_UNIT;
    int status = create_steps(writer, args, err);
    if (status)
        vhdx_writer_close(writer);
    else
        *out = writer;
    return status;
}

void vhdx_writer_close(void *handle)
{
    struct vhdx_writer *writer = handle;
    free(writer->blocks);
    free(writer);
}
