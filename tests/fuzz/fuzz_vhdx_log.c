/* The log: its search, its replay, and the patches that come of it. The input is a file that is a log and nothing else. */
#include "../../formats/vhdx/vhdx.h"
#include "fuzz.h"
#include "seal.h"

static void look_at(const struct vhdx_replay *replay, uint64_t file_size)
{
    uint64_t at = 0;
    FUZZ_REQUIRE(replay->file_size >= file_size);
    for (size_t i = 0; i < replay->overlay.count; i++) {
        const struct vhdx_patch *patch = &replay->overlay.patches[i];
        FUZZ_REQUIRE(patch->start >= at && patch->end > patch->start);
        FUZZ_REQUIRE(patch->source == 0 || patch->end - patch->start <= VHDX_LOG_SECTOR);
        FUZZ_REQUIRE(vhdx_overlay_find(&replay->overlay, patch->start) == patch);
        at = patch->end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    unsigned flags = (unsigned)fuzz_take(&input, 1);
    struct vhdx_header header = { .log_offset = 0 };
    for (unsigned i = 0; i < UUID_SIZE; i++)
        header.log_guid.bytes[i] = (uint8_t)fuzz_take(&input, 1);
    size_t length = (input.size + VHDX_LOG_SECTOR - 1) / VHDX_LOG_SECTOR * VHDX_LOG_SECTOR;
    uint8_t *log = fuzz_take_copy(&input, length);
    header.log_length = length;
    if (flags & 1)
        seal_vhdx_log(log, length);
    struct imgtk_storage *file = fuzz_storage(&(struct fuzz_input){ log, length });
    struct vhdx_replay replay;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (length > 0 && fuzz_judge(vhdx_log_replay(file, &header, length, &replay, &err), &err) == 0) {
        look_at(&replay, length);
        vhdx_overlay_free(&replay.overlay);
    }
    imgtk_storage_close(file);
    free(log);
    return 0;
}
