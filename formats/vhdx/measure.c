#include "vhdx.h"

int vhdx_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err)
{
    struct vhdx_layout layout;
    uint64_t blocks;
    int status = vhdx_layout_from(args->size, args->opts, &layout, err);
    if (!status)
        status = vhdx_plan_blocks(args->plan, &layout, NULL, &blocks, err);
    if (status)
        return status;
    out->fully_allocated = layout.data_offset + layout.block_count * layout.block_size;
    out->required = layout.fixed ? out->fully_allocated : layout.data_offset + blocks * layout.block_size;
    out->file_size = out->required;
    out->file_size_known = true;
    return 0;
}
