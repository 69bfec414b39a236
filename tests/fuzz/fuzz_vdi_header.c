/* The header of both versions; one that is good must survive being written and read again. */
#include <string.h>

#include "../../formats/vdi/vdi.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    uint8_t *bytes = fuzz_take_copy(&input, VDI_HEADER_BYTES);
    uint8_t written[VDI_HEADER_BYTES];
    struct vdi_header header, again;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    vdi_has_signature(bytes, VDI_HEADER_BYTES);
    if (fuzz_judge(vdi_header_parse(bytes, &header, &err), &err) == 0) {
        FUZZ_REQUIRE(header.blocks <= VDI_MAX_BLOCKS && header.block_size <= VDI_MAX_BLOCK_SIZE);
        vdi_header_encode(&header, written);
        if (vdi_header_parse(written, &again, &err) == 0)
            FUZZ_REQUIRE(again.disk_size == header.disk_size && again.blocks == header.blocks);
    }
    free(bytes);
    return 0;
}
