/* Headers, region tables, the metadata table and the parent locator, behind checksums that are made good. */
#include "../../formats/vhdx/vhdx.h"
#include "fuzz.h"
#include "seal.h"

static void parse_headers(struct fuzz_input *input, bool sealed)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vhdx_header_choice choice;
    /* What the parser looks at lies in front; the rest only takes part in the checksum. */
    struct fuzz_input half = { input->data, input->size / 2 };
    uint8_t *first = fuzz_take_copy(&half, VHDX_HEADER_SIZE);
    half = (struct fuzz_input){ input->data + input->size / 2, input->size - input->size / 2 };
    uint8_t *second = fuzz_take_copy(&half, VHDX_HEADER_SIZE);
    if (sealed) {
        seal_vhdx(first, VHDX_HEADER_SIZE);
        seal_vhdx(second, VHDX_HEADER_SIZE);
    }
    fuzz_judge(vhdx_header_choose(first, second, &choice, &err), &err);
    free(first);
    free(second);
}

static void parse_regions(struct fuzz_input *input, bool sealed)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vhdx_regions regions;
    struct vhdx_region_limits limits = { fuzz_take(input, 8), { fuzz_take(input, 8), fuzz_take(input, 4) } };
    uint8_t *table = fuzz_take_copy(input, VHDX_REGION_TABLE_SIZE);
    if (sealed)
        seal_vhdx(table, VHDX_REGION_TABLE_SIZE);
    if (fuzz_judge(vhdx_regions_verify(table, &err), &err) == 0 &&
        fuzz_judge(vhdx_regions_parse(table, &limits, &regions, &err), &err) == 0) {
        FUZZ_REQUIRE(regions.bat.offset <= limits.file_size);
        FUZZ_REQUIRE(regions.metadata.length <= limits.file_size - regions.metadata.offset);
    }
    free(table);
}

static void parse_metadata(struct fuzz_input *input)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vhdx_items items;
    struct vhdx_metadata metadata = {
        .block_size = (uint32_t)fuzz_take(input, 4),
        .logical_sector = (uint32_t)fuzz_take(input, 4),
        .physical_sector = (uint32_t)fuzz_take(input, 4),
        .disk_size = fuzz_take(input, 8),
    };
    uint64_t region_length = fuzz_take(input, 4);
    fuzz_judge(vhdx_metadata_validate(&metadata, &err), &err);
    uint8_t *table = fuzz_take_copy(input, VHDX_METADATA_TABLE_SIZE);
    fuzz_judge(vhdx_metadata_parse_table(table, region_length, &items, &err), &err);
    free(table);
}

static void parse_parent(struct fuzz_input *input)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vhdx_parent parent;
    size_t length = input->size;
    uint8_t *locator = fuzz_take_copy(input, length);
    if (fuzz_judge(vhdx_parent_parse(locator, length, &parent, &err), &err) == 0)
        vhdx_parent_free(&parent);
    free(locator);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    unsigned choice = (unsigned)fuzz_take(&input, 1);
    bool sealed = choice & 0x80;
    switch (choice & 3) {
    case 0:
        parse_headers(&input, sealed);
        break;
    case 1:
        parse_regions(&input, sealed);
        break;
    case 2:
        parse_metadata(&input);
        break;
    default:
        parse_parent(&input);
        break;
    }
    return 0;
}
