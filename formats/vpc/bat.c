/* The block allocation table: read in slices, validated as a whole. */
#include <stdlib.h>
#include <string.h>

#include "vpc.h"

#define SLICE_ENTRIES 16384u
#define SLICE_SIZE (SLICE_ENTRIES * 4u)
#define BAT_CACHE (1u << 20)
#define BITMAP_CACHE (1u << 20)

static int load_slice(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct vpc *vpc = context;
    uint64_t first = key * SLICE_ENTRIES;
    size_t wanted = (size_t)imgtk_min_u64(SLICE_SIZE, (vpc->blocks - first) * 4);
    return imgtk_storage_pread(vpc->file, table, wanted, vpc->header.table_offset + first * 4, err);
}

static int load_bitmap(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct vpc *vpc = context;
    return imgtk_storage_pread(vpc->file, table, vpc->bitmap_size, key * VPC_SECTOR, err);
}

int vpc_bat_open(struct vpc *vpc, struct imgtk_error *err)
{
    int status = imgtk_cache_new(SLICE_SIZE, BAT_CACHE, load_slice, vpc, &vpc->bat, err);
    return status ? status : imgtk_cache_new(vpc->bitmap_size, BITMAP_CACHE, load_bitmap, vpc, &vpc->bitmaps, err);
}

int vpc_bat_get(struct vpc *vpc, uint32_t block, uint32_t *entry, struct imgtk_error *err)
{
    const void *slice;
    int status = imgtk_cache_get(vpc->bat, block / SLICE_ENTRIES, &slice, err);
    if (status)
        return status;
    *entry = imgtk_be32((const uint8_t *)slice + block % SLICE_ENTRIES * 4);
    imgtk_cache_put(vpc->bat, slice);
    return 0;
}

/* Within one slice; 0: the first one is allocated. */
static uint32_t count_unallocated(const uint8_t *slice, uint32_t first, uint32_t limit)
{
    uint32_t count = 0;
    while (count < limit && first + count < SLICE_ENTRIES &&
           imgtk_be32(slice + (first + count) * 4) == VPC_UNALLOCATED)
        count++;
    return count;
}

int vpc_bat_unallocated(struct vpc *vpc, uint32_t block, uint32_t limit, uint32_t *count, struct imgtk_error *err)
{
    *count = 0;
    while (*count < limit) {
        const void *slice;
        uint32_t at = block + *count;
        int status = imgtk_cache_get(vpc->bat, at / SLICE_ENTRIES, &slice, err);
        if (status)
            return status;
        uint32_t more = count_unallocated(slice, at % SLICE_ENTRIES, limit - *count);
        imgtk_cache_put(vpc->bat, slice);
        *count += more;
        if (at % SLICE_ENTRIES + more < SLICE_ENTRIES)
            break;
    }
    return 0;
}

/* ---- Validation ----------------------------------------------------------- */

uint64_t vpc_block_end(const struct vpc *vpc, uint32_t block, uint32_t entry)
{
    uint64_t start = (uint64_t)block << vpc->block_bits;
    uint64_t needed = imgtk_min_u64(vpc->header.block_size, vpc->size - start);
    return (uint64_t)entry * VPC_SECTOR + vpc->bitmap_size + needed;
}

static bool overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a_end;
}

int vpc_block_validate(const struct vpc *vpc, uint32_t block, uint32_t entry, struct imgtk_error *err)
{
    uint64_t start = (uint64_t)entry * VPC_SECTOR, end = vpc_block_end(vpc, block, entry);
    if (end > vpc->file_size)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %u at sector %u reaches to byte %llu, the file has %llu bytes",
                          block, entry, (unsigned long long)end, (unsigned long long)vpc->file_size);
    if (start < VPC_FOOTER_SIZE || overlap(start, end, vpc->footer.data_offset, VPC_HEADER_SIZE) ||
        overlap(start, end, vpc->header.table_offset, (uint64_t)vpc->blocks * 4))
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %u at sector %u lies over the headers or the block table", block,
                          entry);
    return 0;
}

/* Where the blocks lie, collected in the order of the table. */
struct starts {
    uint32_t *sectors;
    size_t count, room;
    bool ascending;
};

static int add_start(struct starts *starts, uint32_t sector, struct imgtk_error *err)
{
    if (starts->count == starts->room) {
        size_t room = starts->room ? starts->room * 2 : 1024;
        uint32_t *sectors = realloc(starts->sectors, room * sizeof(*sectors));
        if (!sectors)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu block addresses", room);
        starts->sectors = sectors;
        starts->room = room;
    }
    if (starts->count && starts->sectors[starts->count - 1] > sector)
        starts->ascending = false;
    starts->sectors[starts->count++] = sector;
    return 0;
}

static int compare_sectors(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static int find_overlaps(struct vpc *vpc, struct starts *starts, vpc_fault_fn fault, void *context,
                         struct vpc_scan *out)
{
    uint32_t apart = (vpc->bitmap_size + vpc->header.block_size) / VPC_SECTOR;
    if (!starts->ascending)
        qsort(starts->sectors, starts->count, sizeof(*starts->sectors), compare_sectors);
    for (size_t i = 1; i < starts->count; i++) {
        uint32_t one = starts->sectors[i - 1], next = starts->sectors[i];
        if (next - one >= apart)
            continue;
        struct imgtk_error found = IMGTK_ERROR_INIT;
        imgtk_fail(&found, IMGTK_ECORRUPT, "two blocks share bytes of the file: they lie at sectors %u and %u, "
                   "less than %u apart", one, next, apart);
        out->faults++;
        int stop = fault(context, &found);
        if (stop)
            return stop;
    }
    return 0;
}

/* The starts are sorted. What is less than a block between two blocks is what their writer aligns them by. */
static uint64_t count_leaked(const struct vpc *vpc, const struct starts *starts, uint64_t front)
{
    uint64_t size = (uint64_t)vpc->bitmap_size + vpc->header.block_size, leaked = 0;
    uint64_t end = vpc->file_size - (vpc->no_end_footer ? 0 : VPC_FOOTER_SIZE);
    for (size_t i = 0; i <= starts->count; i++) {
        uint64_t next = i < starts->count ? (uint64_t)starts->sectors[i] * VPC_SECTOR : end;
        leaked += next > front ? (next - front) / size : 0;
        front = next + size > front ? next + size : front;
    }
    return leaked;
}

static int scan_entry(struct vpc *vpc, uint32_t block, uint32_t entry, struct starts *starts, vpc_fault_fn fault,
                      void *context, struct vpc_scan *out, struct imgtk_error *err)
{
    struct imgtk_error found = IMGTK_ERROR_INIT;
    out->allocated++;
    if (vpc_block_validate(vpc, block, entry, &found)) {
        out->faults++;
        return fault(context, &found);
    }
    uint64_t end = vpc_block_end(vpc, block, entry);
    out->end = end > out->end ? end : out->end;
    return add_start(starts, entry, err);
}

static int scan_entries(struct vpc *vpc, struct starts *starts, vpc_fault_fn fault, void *context,
                        struct vpc_scan *out, struct imgtk_error *err)
{
    uint32_t block = 0;
    while (block < vpc->blocks) {
        uint32_t skip, entry;
        int status = vpc_bat_unallocated(vpc, block, vpc->blocks - block, &skip, err);
        block += skip;
        if (status || block == vpc->blocks)
            return status;
        status = vpc_bat_get(vpc, block, &entry, err);
        if (!status)
            status = scan_entry(vpc, block, entry, starts, fault, context, out, err);
        if (status)
            return status;
        block++;
    }
    return 0;
}

static uint64_t tables_end(const struct vpc *vpc)
{
    return vpc->header.table_offset + (uint64_t)vpc->blocks * 4;
}

int vpc_bat_scan(struct vpc *vpc, vpc_fault_fn fault, void *context, struct vpc_scan *out, struct imgtk_error *err)
{
    struct starts starts = { .ascending = true };
    *out = (struct vpc_scan){ .end = tables_end(vpc) };
    int status = scan_entries(vpc, &starts, fault, context, out, err);
    if (!status)
        status = find_overlaps(vpc, &starts, fault, context, out);
    if (!status)
        out->leaked = count_leaked(vpc, &starts, tables_end(vpc));
    if (!status && starts.count > 0)
        out->blocks_end =
            (uint64_t)starts.sectors[starts.count - 1] * VPC_SECTOR + vpc->bitmap_size + vpc->header.block_size;
    free(starts.sectors);
    return status;
}
