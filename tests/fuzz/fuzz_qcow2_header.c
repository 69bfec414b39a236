/* The header, from its bytes alone: parsed, judged, and what follows from it computed. */
#include "../../formats/qcow2/qcow2.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    uint64_t file_size = fuzz_take(&input, 8);
    size_t length = input.size < QCOW2_FULL_HEADER_LENGTH ? input.size : QCOW2_FULL_HEADER_LENGTH;
    uint8_t *bytes = fuzz_take_copy(&input, length);
    struct qcow2_header header;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int status = fuzz_judge(qcow2_header_parse(bytes, length, &header, &err), &err);
    if (status == 0)
        status = fuzz_judge(qcow2_header_validate(&header, &err), &err);
    if (status == 0)
        status = fuzz_judge(qcow2_header_check_file(&header, file_size, &err), &err);
    if (status == 0) {
        struct qcow2_geometry geometry = qcow2_header_geometry(&header);
        FUZZ_REQUIRE(qcow2_l1_entries(&geometry, header.size) <= header.l1_size);
    }
    free(bytes);
    return 0;
}
