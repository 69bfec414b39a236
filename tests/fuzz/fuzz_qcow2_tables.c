/* The snapshot table and the directory of bitmaps, whose place and length are the input's first numbers. */
#include <string.h>

#include "../../formats/qcow2/qcow2.h"
#include "fuzz.h"

static int see_snapshot(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    FUZZ_REQUIRE(strlen(snapshot->id) <= UINT16_MAX && strlen(snapshot->name) <= UINT16_MAX);
    fuzz_judge(qcow2_snapshot_validate(context, snapshot, err), err);
    return 0;
}

static int see_bitmap(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err)
{
    (void)context, (void)err;
    FUZZ_REQUIRE(strlen(bitmap->name) <= QCOW2_MAX_BITMAP_NAME);
    FUZZ_REQUIRE(bitmap->granularity_bits <= QCOW2_MAX_BITMAP_GRANULARITY_BITS);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = { data, size };
    struct qcow2 image = { .header = { .version = 3, .cluster_bits = 9 } };
    image.header.size = fuzz_take(&input, 8);
    image.header.snapshot_count = (uint32_t)fuzz_take(&input, 2);
    image.header.snapshots_offset = fuzz_take(&input, 2);
    image.extensions.bitmaps.count = (uint32_t)fuzz_take(&input, 2);
    image.extensions.bitmaps.directory_size = fuzz_take(&input, 4);
    image.extensions.bitmaps.directory_offset = fuzz_take(&input, 8);
    image.geometry = qcow2_header_geometry(&image.header);
    image.file_size = input.size;
    image.file = fuzz_storage(&input);
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct qcow2_snapshot found;
    fuzz_judge(qcow2_snapshots_walk(&image, see_snapshot, &image, NULL, &err), &err);
    fuzz_judge(qcow2_snapshot_find(&image, "1", &found, &err), &err);
    fuzz_judge(qcow2_bitmaps_walk(&image, see_bitmap, NULL, &err), &err);
    imgtk_storage_close(image.file);
    return 0;
}
