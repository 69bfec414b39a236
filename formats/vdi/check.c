/* Checking: every block has a place of its own in the file, and the header counts them rightly. */
#include <inttypes.h>
#include <stdio.h>

#include "../common/leaks.h"
#include "vdi.h"

#define MAX_REPORTS 100u /* a damaged table can have a fault in each of half a billion entries */

static void report(struct imgtk_check *check, const char *message)
{
    if (check->corruptions++ < MAX_REPORTS)
        check->report(check->context, message);
}

static int report_fault(void *context, const struct imgtk_error *fault)
{
    report(context, fault->message);
    return 0;
}

static void report_rest(struct imgtk_check *check)
{
    char line[64];
    if (check->corruptions <= MAX_REPORTS)
        return;
    snprintf(line, sizeof(line), "and %" PRIu64 " more faults", check->corruptions - MAX_REPORTS);
    check->report(check->context, line);
}

/* The one fault whose right value is known: one write, of one number. */
static int repair_count(struct vdi *vdi, uint32_t allocated, struct imgtk_check *check, struct imgtk_error *err)
{
    uint8_t field[4];
    imgtk_put_le32(field, allocated);
    uint64_t at = VDI_VERSION_MAJOR(vdi->header.version) == 0 ? VDI0_AT_BLOCKS_ALLOCATED : VDI_AT_BLOCKS_ALLOCATED;
    int status = imgtk_storage_pwrite(vdi->file, field, sizeof(field), at, err);
    if (!status)
        status = imgtk_storage_flush(vdi->file, err);
    if (status)
        return status;
    vdi->header.blocks_allocated = allocated;
    check->corruptions--;
    check->corruptions_fixed++;
    return 0;
}

static const char *why_not_cut(const struct vdi *vdi, const struct imgtk_check *check)
{
    if (check->corruptions > 0)
        return "the image has other faults";
    if (vdi->header.type == VDI_STATIC)
        return "a static disk keeps its room";
    if (vdi->header.blocks > vdi->blocks)
        return "the block table has entries for more than the disk";
    return NULL;
}

static int cut_leaks(struct vdi *vdi, const struct vdi_scan *scan, struct imgtk_check *check, struct imgtk_error *err)
{
    uint64_t stride = (uint64_t)vdi->header.block_size + vdi->header.block_extra;
    uint64_t table_end = vdi->header.table_offset + (uint64_t)vdi->header.blocks * 4;
    struct leaks_tail tail = { .end = scan->end > table_end ? scan->end : table_end,
                               .unsafe = why_not_cut(vdi, check) };
    if (tail.end < vdi->file_size)
        tail.count = imgtk_min_u64((vdi->file_size - tail.end) / stride, scan->leaked);
    if (!leaks_can_cut(check, vdi->file, &tail))
        return 0;
    int status = leaks_cut(check, vdi->file, &tail, err);
    if (!status)
        vdi->file_size = tail.end;
    return status;
}

int vdi_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vdi *vdi = handle;
    struct vdi_scan scan;
    char line[128];
    int status = vdi_table_scan(vdi, report_fault, check, &scan, err);
    if (status)
        return status;
    bool sound = check->corruptions == 0;
    if (scan.allocated != vdi->header.blocks_allocated) {
        snprintf(line, sizeof(line), "the header counts %u allocated blocks, the block table %u",
                 vdi->header.blocks_allocated, scan.allocated);
        report(check, line);
        if (sound && (check->repair & IMGTK_REPAIR_ERRORS))
            status = repair_count(vdi, scan.allocated, check, err);
    }
    report_rest(check);
    leaks_report(check, vdi->file, "blocks", scan.leaked);
    if (!status)
        status = cut_leaks(vdi, &scan, check, err);
    check->image_end_offset = scan.end;
    check->total_clusters = vdi->blocks;
    check->allocated_clusters = scan.allocated;
    return status;
}
