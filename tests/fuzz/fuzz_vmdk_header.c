/* The headers of the three kinds of sparse extents, and the footer that a stream has instead. */
#include "../../formats/vmdk/vmdk.h"
#include "fuzz.h"

static void judge_sparse(int status, const struct vmdk_sparse *sparse, const struct imgtk_error *err)
{
    if (fuzz_judge(status, err) != 0 || sparse->descriptor_only)
        return;
    FUZZ_REQUIRE(sparse->grain > 0 && sparse->grain <= VMDK_MAX_GRAIN);
    FUZZ_REQUIRE(sparse->gtes_per_gt > 0 && sparse->gd_entries <= VMDK_MAX_GD_ENTRIES);
    FUZZ_REQUIRE(sparse->capacity <= VMDK_MAX_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum vmdk_sparse_format formats[] = { VMDK_HOSTED, VMDK_COWD, VMDK_SESPARSE };
    struct fuzz_input input = { data, size };
    uint64_t file_size = fuzz_take(&input, 8);
    uint8_t *header = fuzz_take_copy(&input, VMDK_COWD_HEADER_SIZE);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct vmdk_sparse sparse;
    int status = vmdk_hosted_parse(header, file_size, &sparse, &err);
    judge_sparse(status, &sparse, &err);
    if (status == 0 && sparse.tables_at_end)
        judge_sparse(vmdk_footer_parse(header + VMDK_HOSTED_HEADER_SIZE, file_size, &sparse, &err), &sparse, &err);
    judge_sparse(vmdk_cowd_parse(header, file_size, &sparse, &err), &sparse, &err);
    judge_sparse(vmdk_sesparse_parse(header, file_size, &sparse, &err), &sparse, &err);
    free(header);

    /* The same bytes as a file that ends with them. */
    struct fuzz_input whole = { data, size };
    struct imgtk_storage *file = fuzz_storage(&whole);
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        judge_sparse(vmdk_sparse_read(file, size, formats[i], &sparse, &err), &sparse, &err);
    imgtk_storage_close(file);
    return 0;
}
