/* Writing to a file: blocks are appended in the order of the guest, table and header come last. */
#include <stdlib.h>
#include <string.h>

#include "../common/sparse.h"
#include "vdi.h"

/* ---- Allocation ----------------------------------------------------------- */

static int set_entry(struct vdi_writer *vdi, uint64_t block, uint32_t entry, struct imgtk_error *err)
{
    uint8_t **slice = &vdi->slices[block / VDI_SLICE_ENTRIES];
    if (!*slice) {
        *slice = malloc(VDI_SLICE_SIZE);
        if (!*slice)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the block table");
        memset(*slice, 0xff, VDI_SLICE_SIZE);
    }
    imgtk_put_le32(*slice + block % VDI_SLICE_ENTRIES * 4, entry);
    return 0;
}

static int take_places(struct vdi_writer *vdi, uint64_t offset, uint64_t length, uint64_t *host,
                       struct imgtk_error *err)
{
    uint64_t block = offset / VDI_BLOCK_SIZE, end = imgtk_div_round_up(offset + length, VDI_BLOCK_SIZE);
    *host = vdi_data_end(&vdi->header, vdi->allocated);
    for (; block < end; block++) {
        int status = set_entry(vdi, block, vdi->allocated, err);
        if (status)
            return status;
        vdi->allocated++;
    }
    return 0;
}

/* The blocks of a range come one behind the other; only this part needs the turn. */
static int allocate(struct vdi_writer *vdi, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                    uint64_t *host, struct imgtk_error *err)
{
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    status = take_places(vdi, offset, length, host, err);
    imgtk_turn_end(turn);
    return status;
}

/* ---- Ops ------------------------------------------------------------------ */

static int write_dynamic(struct vdi_writer *vdi, const struct imgtk_write *write, struct imgtk_error *err)
{
    uint64_t host, rest = write->length % VDI_BLOCK_SIZE;
    int status = allocate(vdi, write->offset, write->length, write->turn, &host, err);
    if (status)
        return status;
    if (vdi->zeroed && !vdi->full)
        return sparse_pwrite(vdi->file, write->buf, write->length, host, err);
    status = imgtk_storage_pwrite(vdi->file, write->buf, write->length, host, err);
    if (!status && rest) /* the last block of the disk is a whole one in the file */
        status = imgtk_storage_zero(vdi->file, host + write->length, VDI_BLOCK_SIZE - rest, 0, err);
    return status;
}

int vdi_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct vdi_writer *vdi = writer;
    if (vdi->stream)
        return vdi_stream_write(vdi, write, err);
    if (vdi->header.type == VDI_STATIC)
        return imgtk_storage_pwrite(vdi->file, write->buf, write->length, vdi->header.data_offset + write->offset, err);
    return write_dynamic(vdi, write, err);
}

int vdi_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct vdi_writer *vdi = writer;
    uint32_t flags = vdi->full ? IMGTK_ZERO_ALLOCATE : 0u;
    uint64_t host = vdi->header.data_offset + offset;
    if (vdi->stream) /* what is not written goes out as zeroes anyway */
        return 0;
    if (vdi->header.type == VDI_STATIC)
        return imgtk_storage_zero(vdi->file, host, length, flags, err);
    if (!vdi->full)
        return 0;
    int status = allocate(vdi, offset, length, turn, &host, err);
    uint64_t blocks = imgtk_div_round_up(length, VDI_BLOCK_SIZE);
    return status ? status : imgtk_storage_zero(vdi->file, host, blocks * VDI_BLOCK_SIZE, flags, err);
}

int vdi_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err)
{
    struct vdi_writer *vdi = writer;
    if (vdi->stream || !vdi->zeroed)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "this target has no places for a plain copy");
    *file = vdi->file;
    *host_offset = vdi->header.data_offset + write->offset;
    if (vdi->header.type == VDI_STATIC)
        return 0;
    return allocate(vdi, write->offset, write->length, write->turn, host_offset, err);
}

/* A static disk: every block at its own place. */
static void fill_identity(uint8_t *table, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        imgtk_put_le32(table + (size_t)i * 4, first + i);
}

static int write_table(struct vdi_writer *vdi, struct imgtk_error *err)
{
    int status = 0;
    uint8_t *spare = malloc(VDI_SLICE_SIZE);
    if (!spare)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    memset(spare, 0xff, VDI_SLICE_SIZE);
    for (uint32_t first = 0; !status && first < vdi->header.blocks; first += VDI_SLICE_ENTRIES) {
        const uint8_t *slice = vdi->slices ? vdi->slices[first / VDI_SLICE_ENTRIES] : NULL;
        uint32_t left = vdi->header.blocks - first, count = left < VDI_SLICE_ENTRIES ? left : VDI_SLICE_ENTRIES;
        if (!vdi->slices)
            fill_identity(spare, first, count);
        status = imgtk_storage_pwrite(vdi->file, slice ? slice : spare, (size_t)count * 4,
                                      vdi->header.table_offset + (uint64_t)first * 4, err);
    }
    free(spare);
    return status;
}

/* Cuts the file to size, or clears what a device has behind the source's last byte. */
static int settle_end(struct vdi_writer *vdi, struct imgtk_error *err)
{
    uint64_t end = vdi_data_end(&vdi->header, vdi->header.blocks_allocated);
    uint64_t written = vdi->header.data_offset + vdi->source_size;
    if (!vdi->device)
        return imgtk_storage_truncate(vdi->file, end, err);
    if (vdi->header.type != VDI_STATIC || vdi->zeroed || written == end)
        return 0;
    return imgtk_storage_zero(vdi->file, written, end - written, 0, err);
}

/* The header is what makes the file a VDI. */
int vdi_finish(void *writer, struct imgtk_error *err)
{
    struct vdi_writer *vdi = writer;
    uint8_t header[VDI_HEADER_BYTES];
    if (vdi->stream)
        return vdi_stream_finish(vdi, err);
    vdi->header.blocks_allocated = vdi->header.type == VDI_STATIC ? vdi->header.blocks : vdi->allocated;
    int status = settle_end(vdi, err);
    if (!status)
        status = write_table(vdi, err);
    vdi_header_encode(&vdi->header, header);
    return status ? status : imgtk_storage_pwrite(vdi->file, header, sizeof(header), 0, err);
}
