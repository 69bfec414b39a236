/* Checking: the footers agree, and every block has a place of its own in the file. */
#include <inttypes.h>
#include <stdio.h>

#include "vpc.h"

#define MAX_REPORTS 100u /* a damaged table can have a fault in each of its millions of entries */

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

static void check_footers(const struct vpc *vpc, struct imgtk_check *check)
{
    if (vpc->recovered)
        report(check, "the footer's copy at the front is damaged; the footer at the end is good");
    if (vpc->no_end_footer)
        report(check, "there is no good footer at the end of the file; its copy at the front is good");
}

int vpc_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vpc *vpc = handle;
    struct vpc_scan scan;
    if (check->repair)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VHD images cannot be repaired");
    check_footers(vpc, check);
    if (vpc->footer.type == VPC_FIXED) {
        check->image_end_offset = vpc->file_size;
        return 0;
    }
    int status = vpc_bat_scan(vpc, report_fault, check, &scan, err);
    if (status)
        return status;
    report_rest(check);
    check->image_end_offset = scan.end + VPC_FOOTER_SIZE;
    check->total_clusters = vpc->blocks;
    check->allocated_clusters = scan.allocated;
    return 0;
}
