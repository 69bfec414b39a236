/* Checking: the footers agree, and every block has a place of its own in the file. */
#include "vpc.h"

static int report_fault(void *context, const struct imgtk_error *fault)
{
    struct imgtk_check *check = context;
    check->corruptions++;
    check->report(check->context, fault->message);
    return 0;
}

static void check_footers(const struct vpc *vpc, struct imgtk_check *check)
{
    if (vpc->recovered) {
        check->corruptions++;
        check->report(check->context, "the footer's copy at the front is damaged; the footer at the end is good");
    }
    if (vpc->no_end_footer) {
        check->corruptions++;
        check->report(check->context, "there is no good footer at the end of the file; its copy at the front is good");
    }
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
    check->image_end_offset = scan.end + VPC_FOOTER_SIZE;
    check->total_clusters = vpc->blocks;
    check->allocated_clusters = scan.allocated;
    return 0;
}
