/* The text that describes a VMDK: its keys and its lines of extents. */
#include <string.h>

#include "../../formats/vmdk/vmdk.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    uint8_t *text = fuzz_take_copy(&input, size);
    struct vmdk_descriptor descriptor;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    vmdk_descriptor_probe(text, size);
    if (fuzz_judge(vmdk_descriptor_parse(text, size, &descriptor, &err), &err) == 0) {
        FUZZ_REQUIRE(descriptor.line_count <= VMDK_MAX_EXTENTS);
        for (size_t i = 0; i < descriptor.line_count; i++)
            FUZZ_REQUIRE(strlen(descriptor.lines[i].name) < VMDK_MAX_LINE);
        vmdk_descriptor_free(&descriptor);
    }
    free(text);
    return 0;
}
