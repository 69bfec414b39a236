#include <inttypes.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

/* As other writers of the format choose, so that sizes agree with theirs. */
static uint64_t suitable_block_size(uint64_t size)
{
    if (size > 32 * VHDX_TIB)
        return 64 * VHDX_MIB;
    if (size > 100 * 1024 * VHDX_MIB)
        return 32 * VHDX_MIB;
    return size > 1024 * VHDX_MIB ? 16 * VHDX_MIB : 8 * VHDX_MIB;
}

static int take_options(uint64_t size, const struct imgtk_opts *opts, struct vhdx_layout *out, struct imgtk_error *err)
{
    out->log_length = imgtk_opts_number(opts, "log_size");
    out->block_size = imgtk_opts_number(opts, "block_size");
    out->fixed = strcmp(imgtk_opts_text(opts, "subformat"), "fixed") == 0;
    out->zero_state = imgtk_opts_bool(opts, "block_state_zero");
    if (out->block_size == 0)
        out->block_size = suitable_block_size(size);
    if (size > VHDX_MAX_DISK_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "virtual disk of %" PRIu64 " bytes, VHDX holds at most 64 TiB", size);
    if (!imgtk_is_power_of_two(out->block_size) || out->block_size < VHDX_MIN_BLOCK_SIZE)
        return imgtk_fail(err, IMGTK_EINVAL, "block_size %" PRIu64 " is not a power of two from 1 MiB to 256 MiB",
                          out->block_size);
    if (out->log_length % VHDX_MIB)
        return imgtk_fail(err, IMGTK_EINVAL, "log_size %" PRIu64 " is not a multiple of 1 MiB", out->log_length);
    return 0;
}

int vhdx_layout_from(uint64_t size, const struct imgtk_opts *opts, struct vhdx_layout *out, struct imgtk_error *err)
{
    *out = (struct vhdx_layout){ 0 };
    int status = take_options(size, opts, out, err);
    if (status)
        return status;
    out->size = imgtk_round_up(size, VHDX_LOGICAL_SECTOR);
    out->block_count = imgtk_div_round_up(out->size, out->block_size);
    out->chunk_ratio = VHDX_CHUNK_SECTORS * VHDX_LOGICAL_SECTOR / out->block_size;
    out->bat_entries = out->block_count ? out->block_count + (out->block_count - 1) / out->chunk_ratio : 0;
    out->log_offset = VHDX_SECTION_SIZE;
    out->metadata_offset = out->log_offset + out->log_length;
    out->bat_offset = out->metadata_offset + VHDX_METADATA_LENGTH;
    /* A region cannot be empty, though the table of an empty disk is. */
    out->bat_length = out->bat_entries ? imgtk_round_up(out->bat_entries * VHDX_BAT_ENTRY_SIZE, VHDX_MIB) : VHDX_MIB;
    out->data_offset = out->bat_offset + out->bat_length;
    return 0;
}
