/* Footer, dynamic header and the text of a parent locator, behind checksums that are made good. */
#include "../../formats/vpc/vpc.h"
#include "fuzz.h"
#include "seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    uint8_t flags = (uint8_t)fuzz_take(&input, 1);
    uint8_t *bytes = fuzz_take_copy(&input, VPC_FOOTER_SIZE + VPC_HEADER_SIZE);
    if (flags & 1) {
        seal_vpc_footer(bytes);
        seal_vpc_header(bytes + VPC_FOOTER_SIZE);
    }
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vpc_footer footer;
    struct vpc_header header;
    if (fuzz_judge(vpc_footer_parse(bytes, &footer, &err), &err) == 0)
        for (int rule = VPC_SIZE_BY_CREATOR; rule <= VPC_SIZE_CHS; rule++)
            vpc_footer_size(&footer, (enum vpc_size_rule)rule);
    fuzz_judge(vpc_header_parse(bytes + VPC_FOOTER_SIZE, &header, &err), &err);
    free(bytes);
    size_t length = input.size;
    uint8_t *name = fuzz_take_copy(&input, length);
    free(vpc_utf16_to_utf8(name, length, flags & 2));
    free(name);
    return 0;
}
