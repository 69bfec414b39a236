#include <inttypes.h>
#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

/* Where a guest offset lies; its block has a place. */
static uint64_t host_of(const struct vhdx_writer *writer, uint64_t offset)
{
    const struct vhdx_layout *layout = &writer->layout;
    uint64_t block = offset / layout->block_size;
    uint64_t number = writer->blocks ? writer->blocks[block] - 1 : block;
    return layout->data_offset + number * layout->block_size + offset % layout->block_size;
}

/* In turn. What a new block will not be given must read as zeroes. */
static int allocate_block(struct vhdx_writer *writer, uint64_t block, struct imgtk_error *err)
{
    const struct vhdx_layout *layout = &writer->layout;
    uint64_t host = layout->data_offset + writer->allocated * layout->block_size;
    if (!writer->reads_zero) {
        int status = imgtk_storage_zero(writer->file, host, layout->block_size, 0, err);
        if (status)
            return status;
    }
    writer->blocks[block] = (uint32_t)++writer->allocated;
    return 0;
}

static int allocate_range(struct vhdx_writer *writer, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    uint64_t last = (offset + length - 1) / writer->layout.block_size;
    int status = 0;
    for (uint64_t block = offset / writer->layout.block_size; !status && block <= last; block++) {
        if (writer->blocks[block] == 0)
            status = allocate_block(writer, block, err);
    }
    return status;
}

static int allocate_in_turn(struct vhdx_writer *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                            struct imgtk_error *err)
{
    if (!writer->blocks)
        return 0;
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    status = allocate_range(writer, offset, length, err);
    imgtk_turn_end(turn);
    return status;
}

/* How much of the range, which begins in a block, lies in one piece of the file. */
static uint64_t piece_length(const struct vhdx_writer *writer, uint64_t offset, uint64_t length)
{
    uint64_t block_size = writer->layout.block_size, host = host_of(writer, offset);
    uint64_t piece = block_size - offset % block_size;
    while (piece < length && host_of(writer, offset + piece) == host + piece)
        piece += block_size;
    return imgtk_min_u64(piece, length);
}

static int write_pieces(struct vhdx_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    const char *buf = write->buf;
    for (size_t done = 0; done < write->length;) {
        size_t part = (size_t)piece_length(writer, write->offset + done, write->length - done);
        int status = imgtk_storage_pwrite(writer->file, buf + done, part, host_of(writer, write->offset + done), err);
        if (status)
            return status;
        done += part;
    }
    return 0;
}

static int pad_stream(struct vhdx_writer *writer, uint64_t to, struct imgtk_error *err)
{
    uint64_t from = writer->position;
    writer->position = to;
    return to > from ? imgtk_storage_zero(writer->file, from, to - from, 0, err) : 0;
}

/* Planned blocks that follow one another have places that do. */
static int write_stream(struct vhdx_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    uint64_t last = (write->offset + write->length - 1) / writer->layout.block_size;
    for (uint64_t block = write->offset / writer->layout.block_size; writer->blocks && block <= last; block++) {
        if (writer->blocks[block] == 0)
            return imgtk_fail(err, IMGTK_EINVAL, "data at %" PRIu64 " were not planned for", write->offset);
    }
    uint64_t host = host_of(writer, write->offset);
    if (host < writer->position)
        return imgtk_fail(err, IMGTK_EINVAL, "data at %" PRIu64 " come too late for a stream", write->offset);
    int status = pad_stream(writer, host, err);
    if (!status)
        status = imgtk_storage_pwrite(writer->file, write->buf, write->length, host, err);
    writer->position += write->length;
    return status;
}

int vhdx_write(void *handle, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct vhdx_writer *writer = handle;
    if (!writer->stream) {
        int status = allocate_in_turn(writer, write->offset, write->length, write->turn, err);
        return status ? status : write_pieces(writer, write, err);
    }
    int status = imgtk_turn_begin(write->turn, err);
    if (status)
        return status;
    status = write_stream(writer, write, err);
    imgtk_turn_end(write->turn);
    return status;
}

/* In turn: whether the range will lie in one piece, once those of its blocks that have no place follow the last one. */
static bool one_piece(const struct vhdx_writer *writer, uint64_t offset, uint64_t length)
{
    uint64_t block = offset / writer->layout.block_size, last = (offset + length - 1) / writer->layout.block_size;
    uint64_t next = writer->allocated + 1;
    uint64_t expected = writer->blocks[block] ? writer->blocks[block] : next;
    for (; block <= last; block++, expected++) {
        if ((writer->blocks[block] ? writer->blocks[block] : next) != expected)
            return false;
        next += writer->blocks[block] == 0;
    }
    return true;
}

static int place_in_turn(struct vhdx_writer *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(write->turn, err);
    if (status)
        return status;
    /* The turn goes on then: the write() that follows needs it. */
    if (!one_piece(writer, write->offset, write->length))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the data lie in several places");
    status = allocate_range(writer, write->offset, write->length, err);
    imgtk_turn_end(write->turn);
    return status;
}

int vhdx_place(void *handle, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
               struct imgtk_error *err)
{
    struct vhdx_writer *writer = handle;
    if (writer->stream)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "a stream has no places");
    int status = writer->blocks ? place_in_turn(writer, write, err) : 0;
    if (status)
        return status;
    *file = writer->file;
    *host_offset = host_of(writer, write->offset);
    return 0;
}

/* What is not written of a dynamic disk reads as zeroes already, as does what a stream skips. */
int vhdx_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct vhdx_writer *writer = handle;
    if (writer->stream || (writer->blocks && !writer->full))
        return 0;
    int status = allocate_in_turn(writer, offset, length, turn, err);
    while (!status && length > 0) {
        uint64_t part = piece_length(writer, offset, length);
        status = imgtk_storage_zero(writer->file, host_of(writer, offset), part,
                                    writer->full ? IMGTK_ZERO_ALLOCATE : 0, err);
        offset += part;
        length -= part;
    }
    return status;
}

/* ---- Tables --------------------------------------------------------------- */

static uint64_t bat_entry(const struct vhdx_writer *writer, uint64_t index)
{
    const struct vhdx_layout *layout = &writer->layout;
    uint64_t stride = layout->chunk_ratio + 1, block = index - index / stride;
    if (index >= layout->bat_entries || index % stride == layout->chunk_ratio)
        return 0;
    if (writer->blocks && writer->blocks[block] == 0)
        return layout->zero_state ? VHDX_BLOCK_ZERO : VHDX_BLOCK_NOT_PRESENT;
    return host_of(writer, block * layout->block_size) | VHDX_BLOCK_FULLY_PRESENT;
}

/* Returns whether the slice holds anything but zeroes. */
static bool build_slice(const struct vhdx_writer *writer, uint64_t first, uint8_t *slice)
{
    uint64_t any = 0;
    for (uint64_t i = 0; i < VHDX_SLICE / VHDX_BAT_ENTRY_SIZE; i++) {
        uint64_t entry = bat_entry(writer, first + i);
        imgtk_put_le64(slice + i * VHDX_BAT_ENTRY_SIZE, entry);
        any |= entry;
    }
    return any != 0;
}

static int write_bat(struct vhdx_writer *writer, struct imgtk_error *err)
{
    uint8_t *slice = malloc(VHDX_SLICE);
    if (!slice)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the block allocation table");
    int status = 0;
    for (uint64_t at = 0; !status && at < writer->layout.bat_length; at += VHDX_SLICE) {
        if (build_slice(writer, at / VHDX_BAT_ENTRY_SIZE, slice) || writer->stream)
            status = imgtk_storage_pwrite(writer->file, slice, VHDX_SLICE, writer->layout.bat_offset + at, err);
    }
    free(slice);
    return status;
}

int vhdx_write_tables(struct vhdx_writer *writer, struct imgtk_error *err)
{
    uint64_t offset = writer->layout.metadata_offset;
    uint8_t *metadata = calloc(1, VHDX_BUILD_METADATA_SIZE);
    if (!metadata)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the metadata");
    vhdx_build_metadata(metadata, &writer->layout, &writer->identity);
    int status = imgtk_storage_pwrite(writer->file, metadata, VHDX_BUILD_METADATA_SIZE, offset, err);
    free(metadata);
    if (!status && writer->stream)
        status = imgtk_storage_zero(writer->file, offset + VHDX_BUILD_METADATA_SIZE,
                                    VHDX_METADATA_LENGTH - VHDX_BUILD_METADATA_SIZE, 0, err);
    return status ? status : write_bat(writer, err);
}

/* ---- The end -------------------------------------------------------------- */

static int finish_size(struct vhdx_writer *writer, uint64_t end, struct imgtk_error *err)
{
    uint64_t size;
    if (!(imgtk_storage_flags(writer->file) & IMGTK_STORAGE_FIXED_SIZE))
        return imgtk_storage_truncate(writer->file, end, err);
    int status = imgtk_storage_size(writer->file, &size, err);
    if (!status && size < end)
        return imgtk_fail(err, IMGTK_ENOSPACE, "the image takes %" PRIu64 " bytes, the target has %" PRIu64, end, size);
    return status;
}

/* The identifier alone makes the file a VHDX: it comes when all the rest is there. */
static int write_section(struct vhdx_writer *writer, struct imgtk_error *err)
{
    uint64_t headers = VHDX_HEADER_1_OFFSET;
    uint8_t *section = calloc(1, VHDX_SECTION_SIZE);
    if (!section)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the headers");
    vhdx_build_section(section, &writer->layout, &writer->identity);
    int status = imgtk_storage_pwrite(writer->file, section + headers,
                                      VHDX_REGION_2_OFFSET + VHDX_REGION_TABLE_SIZE - headers, headers, err);
    if (!status && !writer->reads_zero)
        status = imgtk_storage_flush(writer->file, err);
    if (!status)
        status = imgtk_storage_pwrite(writer->file, section, VHDX_HEADER_SIZE, 0, err);
    free(section);
    return status;
}

int vhdx_finish(void *handle, struct imgtk_error *err)
{
    struct vhdx_writer *writer = handle;
    uint64_t end = writer->layout.data_offset + writer->allocated * writer->layout.block_size;
    if (writer->stream)
        return pad_stream(writer, end, err);
    int status = finish_size(writer, end, err);
    if (!status)
        status = vhdx_write_tables(writer, err);
    return status ? status : write_section(writer, err);
}
