/* Creating: options to layout, and the target made ready. */
#include <stdlib.h>
#include <string.h>

#include "vpc.h"

#define HEADER_AT 512u
#define TABLE_AT (HEADER_AT + VPC_HEADER_SIZE)
#define PAGE 4096u /* data begin on pages, so that guest pages are file pages: holes and reflinks work */

/* ---- Layout --------------------------------------------------------------- */

static void lay_out(struct vpc_layout *layout, uint64_t size)
{
    layout->size = size;
    layout->blocks = (uint32_t)imgtk_div_round_up(size, VPC_BLOCK_SIZE);
    layout->table_size = (uint32_t)imgtk_round_up((uint64_t)layout->blocks * 4, VPC_SECTOR);
    layout->data_start = imgtk_round_up(TABLE_AT + layout->table_size + VPC_SECTOR, PAGE) - VPC_SECTOR;
    layout->stride = VPC_BLOCK_SIZE + PAGE;
}

uint64_t vpc_layout_data_end(const struct vpc_layout *layout, uint32_t allocated)
{
    if (allocated == 0)
        return TABLE_AT + layout->table_size;
    return layout->data_start + (allocated - 1) * layout->stride + VPC_SECTOR + VPC_BLOCK_SIZE;
}

void vpc_encode_header(const struct vpc_layout *layout, uint8_t out[VPC_HEADER_SIZE])
{
    struct vpc_header header = { .table_offset = TABLE_AT, .entries = layout->blocks, .block_size = VPC_BLOCK_SIZE };
    vpc_header_encode(&header, out);
}

static void fill_footer(struct vpc_footer *footer, const struct vpc_create_options *options, uint64_t size)
{
    footer->data_offset = options->type == VPC_FIXED ? VPC_NO_OFFSET : HEADER_AT;
    footer->timestamp = options->timestamp;
    memcpy(footer->creator, options->exact ? "qem2" : "qemu", 4); /* readers choose the size rule by it */
    memcpy(footer->creator_os, "Wi2k", 4);
    footer->creator_version = 0x00050003;
    footer->original_size = footer->current_size = size;
    footer->type = options->type;
    memcpy(footer->uuid, options->uuid, UUID_SIZE);
}

static int plan_file(struct vpc_writer *vpc, const struct imgtk_create *args, struct imgtk_error *err)
{
    struct vpc_create_options options;
    uint64_t size;
    int status = vpc_options_parse(args, &options, err);
    if (!status)
        status = vpc_plan_size(options.size, options.exact, &vpc->footer.geometry, &size, err);
    if (status)
        return status;
    fill_footer(&vpc->footer, &options, size);
    lay_out(&vpc->layout, size);
    return 0;
}

/* ---- The target ----------------------------------------------------------- */

/* A device keeps its size, and the last footer belongs at its very end. */
static int fit_device(struct vpc_writer *vpc, struct imgtk_error *err)
{
    uint64_t needed = vpc->layout.size + VPC_FOOTER_SIZE;
    int status = imgtk_storage_size(vpc->file, &vpc->device_size, err);
    if (status)
        return status;
    if (vpc->footer.type == VPC_FIXED && vpc->device_size != needed)
        return imgtk_fail(err, IMGTK_EINVAL, "a fixed VHD ends with its footer: the target has %llu bytes, not %llu",
                          (unsigned long long)vpc->device_size, (unsigned long long)needed);
    if (vpc->footer.type == VPC_DYNAMIC && vpc->device_size < vpc_layout_data_end(&vpc->layout, 0) + VPC_FOOTER_SIZE)
        return imgtk_fail(err, IMGTK_ENOSPACE, "the target has %llu bytes, too few for the block table",
                          (unsigned long long)vpc->device_size);
    return 0;
}

/* What would be taken for an image is erased before anything is written. */
static int erase_footers(struct vpc_writer *vpc, struct imgtk_error *err)
{
    int status = imgtk_storage_zero(vpc->file, vpc->device_size - VPC_FOOTER_SIZE, VPC_FOOTER_SIZE, 0, err);
    if (!status && vpc->footer.type == VPC_DYNAMIC)
        status = imgtk_storage_zero(vpc->file, 0, TABLE_AT, 0, err);
    return status;
}

static int prepare_target(struct vpc_writer *vpc, struct imgtk_error *err)
{
    uint32_t flags = imgtk_storage_flags(vpc->file);
    vpc->zeroed = (flags & IMGTK_STORAGE_READS_ZERO) != 0;
    vpc->device = (flags & IMGTK_STORAGE_FIXED_SIZE) != 0;
    if (vpc->device) {
        int status = fit_device(vpc, err);
        return status || vpc->zeroed ? status : erase_footers(vpc, err);
    }
    if (vpc->zeroed)
        return 0;
    vpc->zeroed = true;
    return imgtk_storage_truncate(vpc->file, 0, err);
}

static int make_table(struct vpc_writer *vpc, struct imgtk_error *err)
{
    if (vpc->layout.table_size == 0)
        return 0;
    vpc->table = malloc(vpc->layout.table_size);
    if (!vpc->table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a block table of %u bytes", vpc->layout.table_size);
    memset(vpc->table, 0xff, vpc->layout.table_size);
    return 0;
}

/* ---- Ops ------------------------------------------------------------------ */

static int begin(struct vpc_writer *vpc, const struct imgtk_create *args, struct imgtk_error *err)
{
    int status = plan_file(vpc, args, err);
    if (status)
        return status;
    if (vpc->stream)
        return vpc_stream_begin(vpc, err);
    status = prepare_target(vpc, err);
    if (!status && vpc->footer.type == VPC_DYNAMIC)
        status = make_table(vpc, err);
    return status;
}

int vpc_create(struct imgtk_create *args, void **writer, struct imgtk_error *err)
{
    if (args->flags & IMGTK_CREATE_COMPRESS)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VHD images cannot be compressed");
    struct vpc_writer *vpc = calloc(1, sizeof(*vpc));
    if (!vpc)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    vpc->file = args->file;
    vpc->source_size = args->size;
    vpc->plan = args->plan;
    vpc->full = (args->flags & IMGTK_CREATE_FULL) != 0;
    vpc->stream = (args->flags & IMGTK_CREATE_STREAM) != 0;
    int status = begin(vpc, args, err);
    if (status) {
        vpc_writer_close(vpc);
        return status;
    }
    args->unit = vpc->footer.type == VPC_FIXED ? VPC_SECTOR : VPC_BLOCK_SIZE;
    *writer = vpc;
    return 0;
}

void vpc_writer_close(void *writer)
{
    struct vpc_writer *vpc = writer;
    free(vpc->table);
    free(vpc);
}

static int count_planned(struct imgtk_plan *plan, uint32_t *out, struct imgtk_error *err)
{
    uint64_t offset = 0, start, length;
    *out = 0;
    while (plan) {
        int status = imgtk_plan_next(plan, VPC_BLOCK_SIZE, offset, &start, &length, err);
        if (status || length == 0)
            return status;
        offset = imgtk_round_up(start + length, VPC_BLOCK_SIZE);
        *out += (uint32_t)((offset - start) / VPC_BLOCK_SIZE);
    }
    return 0;
}

int vpc_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    struct vpc_writer vpc = { 0 };
    uint32_t planned;
    int status = plan_file(&vpc, args, err);
    if (!status)
        status = count_planned(args->plan, &planned, err);
    if (status)
        return status;
    *out = (struct imgtk_measure){ .required = vpc.layout.size + VPC_FOOTER_SIZE };
    out->fully_allocated = out->required;
    if (vpc.footer.type == VPC_DYNAMIC) {
        out->required = vpc_layout_data_end(&vpc.layout, planned) + VPC_FOOTER_SIZE;
        out->fully_allocated = vpc_layout_data_end(&vpc.layout, vpc.layout.blocks) + VPC_FOOTER_SIZE;
    }
    out->file_size = out->required;
    out->file_size_known = true;
    return 0;
}
