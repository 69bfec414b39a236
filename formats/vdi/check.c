/* Checking: every block has a place of its own in the file, and the header counts them rightly. */
#include <inttypes.h>
#include <stdio.h>

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

int vdi_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vdi *vdi = handle;
    struct vdi_scan scan;
    char line[128];
    if (check->repair)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VDI images cannot be repaired");
    int status = vdi_table_scan(vdi, report_fault, check, &scan, err);
    if (status)
        return status;
    if (scan.allocated != vdi->header.blocks_allocated) {
        snprintf(line, sizeof(line), "the header counts %u allocated blocks, the block table %u",
                 vdi->header.blocks_allocated, scan.allocated);
        report(check, line);
    }
    report_rest(check);
    check->image_end_offset = scan.end;
    check->total_clusters = vdi->blocks;
    check->allocated_clusters = scan.allocated;
    return 0;
}
