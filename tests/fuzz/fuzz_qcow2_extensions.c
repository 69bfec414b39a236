/* The header extensions behind a header that is good. */
#include <string.h>

#include "../../formats/qcow2/qcow2.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    struct qcow2_header header = { .version = 3, .cluster_bits = 9 + (unsigned)fuzz_take(&input, 1) % 13 };
    header.incompatible = fuzz_take(&input, 8);
    header.autoclear = fuzz_take(&input, 1);
    header.backing_offset = fuzz_take(&input, 2);
    struct qcow2_extensions extensions;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage *file = fuzz_storage(&input);
    if (fuzz_judge(qcow2_extensions_read(file, &header, input.size, &extensions, &err), &err) == 0) {
        FUZZ_REQUIRE(memchr(extensions.backing_format, '\0', sizeof(extensions.backing_format)));
        FUZZ_REQUIRE(memchr(extensions.data_file, '\0', sizeof(extensions.data_file)));
    }
    imgtk_storage_close(file);
    return 0;
}
