/* Partition tables: the input is the beginning of a disk of any size, in which the checksums of a GPT are made good. */
#include <string.h>

#include "fuzz.h"
#include "imgtk/bytes.h"
#include "imgtk/crc.h"
#include "partitions.h"

#define HELD (20u << 10) /* bytes of the disk that the input can set; the rest is zero */

enum { SEAL = 1, SECTORS_OF_4_KIB = 2 };

static int read_disk(void *context, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    const uint8_t *bytes = context;
    (void)err;
    memset(buf, 0, length);
    if (offset < HELD)
        memcpy(buf, bytes + offset, (size_t)imgtk_min_u64(length, HELD - offset));
    return 0;
}

/* The header in the second sector, and the entries that it points at, where they lie whole within what is held. */
static void seal(uint8_t *bytes, size_t sector_size)
{
    uint8_t *header = bytes + sector_size;
    uint64_t at = imgtk_le64(header + 72), entries = (uint64_t)imgtk_le32(header + 80) * imgtk_le32(header + 84);
    uint32_t size = imgtk_le32(header + 12);
    if (at < HELD / sector_size && entries <= HELD - at * sector_size)
        imgtk_put_le32(header + 88, imgtk_crc32(0, bytes + at * sector_size, (size_t)entries));
    imgtk_put_le32(header + 16, 0);
    if (size <= sector_size)
        imgtk_put_le32(header + 16, imgtk_crc32(0, header, size));
}

/* What whoever draws them counts on. */
static void judge(const struct partition_table *table, uint64_t size)
{
    uint64_t end = 0;
    FUZZ_REQUIRE(table->count <= PARTITIONS_MAX);
    for (size_t i = 0; i < table->count; i++) {
        const struct partition *partition = &table->partitions[i];
        FUZZ_REQUIRE(partition->start >= end && partition->length > 0);
        FUZZ_REQUIRE(imgtk_range_fits(partition->start, partition->length, size));
        FUZZ_REQUIRE(partition->type && strnlen(partition->name, PARTITION_NAME_SIZE) < PARTITION_NAME_SIZE);
        end = partition->start + partition->length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct partition_table table;
    struct fuzz_input input = { data, size };
    uint8_t flags = (uint8_t)fuzz_take(&input, 1);
    uint64_t disk_size = fuzz_take(&input, 5);
    uint8_t *bytes = fuzz_take_copy(&input, HELD);
    struct partition_disk disk = { .size = disk_size, .read = read_disk, .context = bytes };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (flags & SEAL)
        seal(bytes, flags & SECTORS_OF_4_KIB ? 4096 : 512);
    if (fuzz_judge(partitions_read(&disk, &table, &err), &err) == 0)
        judge(&table, disk_size);
    free(bytes);
    return 0;
}
