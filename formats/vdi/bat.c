/* The block table: read in slices, validated as a whole. */
#include <stdlib.h>

#include "vdi.h"

#define TABLE_CACHE (1u << 20)
#define WINDOW (UINT32_C(1) << 27) /* blocks of the file that one pass looks for duplicates among: 16 MiB of bits */

static int load_slice(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct vdi *vdi = context;
    uint64_t first = key * VDI_SLICE_ENTRIES;
    size_t wanted = (size_t)imgtk_min_u64(VDI_SLICE_SIZE, (vdi->blocks - first) * 4);
    return imgtk_storage_pread(vdi->file, table, wanted, vdi->header.table_offset + first * 4, err);
}

int vdi_table_open(struct vdi *vdi, struct imgtk_error *err)
{
    return imgtk_cache_new(VDI_SLICE_SIZE, TABLE_CACHE, load_slice, vdi, &vdi->table, err);
}

int vdi_table_get(struct vdi *vdi, uint32_t block, uint32_t *entry, struct imgtk_error *err)
{
    uint32_t count;
    return vdi_table_run(vdi, block, 1, entry, &count, err);
}

/* Within one slice; 0: the first one does not continue. */
static uint32_t count_run(const uint8_t *slice, uint32_t first, uint32_t limit, uint32_t expected, uint32_t step)
{
    uint32_t count = 0;
    while (count < limit && first + count < VDI_SLICE_ENTRIES &&
           imgtk_le32(slice + (first + count) * 4) == expected) {
        count++;
        expected += step;
    }
    return count;
}

int vdi_table_run(struct vdi *vdi, uint32_t block, uint32_t limit, uint32_t *entry, uint32_t *count,
                  struct imgtk_error *err)
{
    uint32_t step = 0;
    *count = 0;
    while (*count < limit) {
        const void *slice;
        uint32_t at = block + *count, within = at % VDI_SLICE_ENTRIES;
        int status = imgtk_cache_get(vdi->table, at / VDI_SLICE_ENTRIES, &slice, err);
        if (status)
            return status;
        if (*count == 0) {
            *entry = imgtk_le32((const uint8_t *)slice + within * 4);
            step = vdi_is_allocated(*entry) ? 1 : 0;
        }
        uint32_t more = count_run(slice, within, limit - *count, *entry + *count * step, step);
        imgtk_cache_put(vdi->table, slice);
        *count += more;
        if (within + more < VDI_SLICE_ENTRIES)
            break;
    }
    return 0;
}

/* ---- Validation ----------------------------------------------------------- */

static uint64_t stride(const struct vdi *vdi)
{
    return (uint64_t)vdi->header.block_size + vdi->header.block_extra;
}

uint64_t vdi_block_offset(const struct vdi *vdi, uint32_t entry)
{
    return vdi->header.data_offset + entry * stride(vdi) + vdi->header.block_extra;
}

int vdi_block_validate(const struct vdi *vdi, uint32_t block, uint32_t entry, struct imgtk_error *err)
{
    uint64_t start = (uint64_t)block * vdi->header.block_size;
    uint64_t needed = imgtk_min_u64(vdi->header.block_size, vdi->header.disk_size - start);
    if (entry >= vdi->header.blocks)
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %u is said to be at place %u of %u", block, entry,
                          vdi->header.blocks);
    uint64_t offset = vdi_block_offset(vdi, entry);
    if (!imgtk_range_fits(offset, needed, vdi->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "block %u at byte %llu reaches beyond the file's %llu bytes", block,
                          (unsigned long long)offset, (unsigned long long)vdi->file_size);
    return 0;
}

/* One pass over the table. It judges every entry (the first pass), and finds duplicates within its window. */
struct pass {
    vdi_fault_fn fault;
    void *context;
    struct vdi_scan *scan;
    uint8_t *taken; /* a bit for each place of the window */
    uint32_t window, places;
    uint32_t whole; /* places of the file, all of whose bytes are there */
    bool first;
};

static int tell_duplicate(const struct pass *pass, uint32_t block, uint32_t entry)
{
    struct imgtk_error found = IMGTK_ERROR_INIT;
    imgtk_fail(&found, IMGTK_ECORRUPT, "block %u and an earlier one are both at place %u of the file", block, entry);
    return pass->fault(pass->context, &found);
}

static int judge(struct vdi *vdi, const struct pass *pass, uint32_t block, uint32_t entry)
{
    struct imgtk_error found = IMGTK_ERROR_INIT;
    int status = vdi_block_validate(vdi, block, entry, &found);
    if (pass->first) {
        pass->scan->allocated++;
        if (status)
            return pass->fault(pass->context, &found);
        uint64_t end = vdi_block_offset(vdi, entry) + vdi->header.block_size;
        pass->scan->end = end > pass->scan->end ? end : pass->scan->end;
    }
    if (status || entry < pass->window || entry - pass->window >= pass->places)
        return 0;
    uint32_t place = entry - pass->window;
    uint8_t bit = (uint8_t)(1u << place % 8);
    if (pass->taken[place / 8] & bit)
        return tell_duplicate(pass, block, entry);
    pass->taken[place / 8] |= bit;
    pass->scan->leaked -= entry < pass->whole && pass->scan->leaked > 0;
    return 0;
}

static int run_pass(struct vdi *vdi, const struct pass *pass, struct imgtk_error *err)
{
    uint32_t block = 0;
    while (block < vdi->blocks) {
        uint32_t entry, count;
        int status = vdi_table_run(vdi, block, vdi->blocks - block, &entry, &count, err);
        if (status)
            return status;
        for (uint32_t i = 0; !status && vdi_is_allocated(entry) && i < count; i++)
            status = judge(vdi, pass, block + i, entry + i);
        if (status)
            return status;
        block += count;
    }
    return 0;
}

/* Places of the file that blocks can be at. */
static uint32_t count_places(const struct vdi *vdi)
{
    uint64_t data = vdi->file_size - imgtk_min_u64(vdi->file_size, vdi->header.data_offset);
    return (uint32_t)imgtk_min_u64(data / stride(vdi) + 1, vdi->header.blocks);
}

static uint32_t count_whole_places(const struct vdi *vdi)
{
    uint64_t data = vdi->file_size - imgtk_min_u64(vdi->file_size, vdi->header.data_offset);
    return (uint32_t)imgtk_min_u64(data / stride(vdi), vdi->header.blocks);
}

int vdi_table_scan(struct vdi *vdi, vdi_fault_fn fault, void *context, struct vdi_scan *out, struct imgtk_error *err)
{
    uint32_t places = count_places(vdi);
    struct pass pass = { .fault = fault, .context = context, .scan = out, .first = true };
    pass.whole = count_whole_places(vdi);
    *out = (struct vdi_scan){ .end = vdi->header.data_offset, .leaked = pass.whole };
    int status = 0;
    do {
        pass.places = places - pass.window < WINDOW ? places - pass.window : WINDOW;
        pass.taken = calloc(1, pass.places / 8 + 1);
        if (!pass.taken)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a set of %u blocks", pass.places);
        status = run_pass(vdi, &pass, err);
        free(pass.taken);
        pass.window += pass.places;
        pass.first = false;
    } while (!status && pass.window < places);
    /* The table may have entries for more blocks than the disk takes, and they may have places. */
    uint32_t spare = vdi->header.blocks - vdi->blocks;
    out->leaked -= spare < out->leaked ? spare : out->leaked;
    return status;
}
