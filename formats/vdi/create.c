/* Creating: options to layout, and the target made ready. */
#include <stdlib.h>
#include <string.h>

#include "vdi.h"

#define TABLE_AT VDI_HEADER_BYTES
#define PAGE 4096u /* data begin on a page, so that guest pages are file pages: holes and reflinks work */

/* ---- Layout --------------------------------------------------------------- */

uint32_t vdi_slice_count(const struct vdi_header *header)
{
    return (uint32_t)imgtk_div_round_up(header->blocks, VDI_SLICE_ENTRIES);
}

uint64_t vdi_data_end(const struct vdi_header *header, uint32_t allocated)
{
    return header->data_offset + (uint64_t)allocated * VDI_BLOCK_SIZE;
}

static int plan_file(struct vdi_header *header, const struct imgtk_create *args, struct imgtk_error *err)
{
    uint64_t blocks = imgtk_div_round_up(args->size, VDI_BLOCK_SIZE);
    if (blocks > VDI_MAX_BLOCKS)
        return imgtk_fail(err, IMGTK_ELIMIT, "size %llu exceeds the largest VDI, %llu bytes",
                          (unsigned long long)args->size, (unsigned long long)VDI_MAX_BLOCKS * VDI_BLOCK_SIZE);
    header->blocks = (uint32_t)blocks;
    header->block_size = VDI_BLOCK_SIZE;
    header->disk_size = imgtk_round_up(args->size, VDI_SECTOR);
    header->table_offset = TABLE_AT;
    header->data_offset = imgtk_round_up(TABLE_AT + blocks * 4, PAGE);
    return vdi_options_parse(args, header, err);
}

/* ---- The target ----------------------------------------------------------- */

/* A device keeps its size and its old content: what would be taken for an image is erased first. */
static int prepare_target(struct vdi_writer *vdi, struct imgtk_error *err)
{
    uint32_t flags = imgtk_storage_flags(vdi->file);
    vdi->zeroed = (flags & IMGTK_STORAGE_READS_ZERO) != 0;
    vdi->device = (flags & IMGTK_STORAGE_FIXED_SIZE) != 0;
    if (vdi->zeroed)
        return 0;
    if (vdi->device)
        return imgtk_storage_zero(vdi->file, 0, VDI_HEADER_BYTES, 0, err);
    vdi->zeroed = true;
    return imgtk_storage_truncate(vdi->file, 0, err);
}

static int make_slices(struct vdi_writer *vdi, struct imgtk_error *err)
{
    uint32_t count = vdi_slice_count(&vdi->header);
    vdi->slices = calloc((size_t)count + 1, sizeof(*vdi->slices));
    return vdi->slices ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a block table of %u slices", count);
}

/* ---- Ops ------------------------------------------------------------------ */

static int begin(struct vdi_writer *vdi, const struct imgtk_create *args, struct imgtk_error *err)
{
    int status = plan_file(&vdi->header, args, err);
    if (status)
        return status;
    if (vdi->stream)
        return vdi_stream_begin(vdi, err);
    status = prepare_target(vdi, err);
    if (!status && vdi->header.type == VDI_DYNAMIC)
        status = make_slices(vdi, err);
    return status;
}

int vdi_create(struct imgtk_create *args, void **writer, struct imgtk_error *err)
{
    if (args->flags & IMGTK_CREATE_COMPRESS)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VDI images cannot be compressed");
    struct vdi_writer *vdi = calloc(1, sizeof(*vdi));
    if (!vdi)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    vdi->file = args->file;
    vdi->plan = args->plan;
    vdi->source_size = args->size;
    vdi->full = (args->flags & IMGTK_CREATE_FULL) != 0;
    vdi->stream = (args->flags & IMGTK_CREATE_STREAM) != 0;
    int status = begin(vdi, args, err);
    if (status) {
        vdi_writer_close(vdi);
        return status;
    }
    args->unit = vdi->header.type == VDI_STATIC ? PAGE : VDI_BLOCK_SIZE;
    *writer = vdi;
    return 0;
}

void vdi_writer_close(void *writer)
{
    struct vdi_writer *vdi = writer;
    for (uint32_t i = 0; vdi->slices && i < vdi_slice_count(&vdi->header); i++)
        free(vdi->slices[i]);
    free(vdi->slices);
    free(vdi);
}

int vdi_count_planned(struct imgtk_plan *plan, uint32_t *out, struct imgtk_error *err)
{
    uint64_t offset = 0, start, length;
    *out = 0;
    while (plan) {
        int status = imgtk_plan_next(plan, VDI_BLOCK_SIZE, offset, &start, &length, err);
        if (status || length == 0)
            return status;
        offset = imgtk_round_up(start + length, VDI_BLOCK_SIZE);
        *out += (uint32_t)((offset - start) / VDI_BLOCK_SIZE);
    }
    return 0;
}

int vdi_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    struct vdi_header header = { .block_extra = 0 };
    uint32_t planned = 0;
    int status = plan_file(&header, args, err);
    if (!status && header.type == VDI_DYNAMIC)
        status = vdi_count_planned(args->plan, &planned, err);
    if (status)
        return status;
    *out = (struct imgtk_measure){ .fully_allocated = vdi_data_end(&header, header.blocks) };
    out->required = header.type == VDI_STATIC ? out->fully_allocated : vdi_data_end(&header, planned);
    out->file_size = out->required;
    out->file_size_known = true;
    return 0;
}
