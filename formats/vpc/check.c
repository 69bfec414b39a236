/* Checking: the footers agree, and every block has a place of its own in the file. */
#include <inttypes.h>
#include <stdio.h>

#include "../common/leaks.h"
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

/* Where the footer at the end belongs: over a damaged one, else behind all that the file holds. */
static uint64_t end_footer_offset(const struct vpc *vpc, const struct vpc_scan *scan)
{
    uint64_t last = vpc->file_size - VPC_FOOTER_SIZE;
    if (vpc->file_size % VPC_FOOTER_SIZE == 0 && vpc->file_size >= VPC_FOOTER_SIZE && last >= scan->end)
        return last;
    return imgtk_round_up(vpc->file_size > scan->end ? vpc->file_size : scan->end, VPC_FOOTER_SIZE);
}

/* One write, of the good footer to where no good one is; nothing else has its place there. */
static int repair_footer(struct vpc *vpc, const struct vpc_scan *scan, struct imgtk_check *check,
                         struct imgtk_error *err)
{
    uint8_t bytes[VPC_FOOTER_SIZE];
    uint64_t from = vpc->recovered ? vpc->file_size - VPC_FOOTER_SIZE : 0;
    uint64_t to = vpc->recovered ? 0 : end_footer_offset(vpc, scan);
    bool apart = vpc->footer.data_offset >= VPC_FOOTER_SIZE && vpc->header.table_offset >= VPC_FOOTER_SIZE;
    struct vpc_footer footer;
    int status = imgtk_storage_pread(vpc->file, bytes, sizeof(bytes), from, err);
    if (status || !apart || vpc_footer_parse(bytes, &footer, NULL)) /* a footer of 511 bytes is not copied */
        return status;
    status = imgtk_storage_pwrite(vpc->file, bytes, sizeof(bytes), to, err);
    if (!status)
        status = imgtk_storage_flush(vpc->file, err);
    if (!status)
        status = imgtk_storage_size(vpc->file, &vpc->file_size, err);
    if (status)
        return status;
    vpc->recovered = vpc->no_end_footer = false;
    check->corruptions--;
    check->corruptions_fixed++;
    return 0;
}

int vpc_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vpc *vpc = handle;
    struct vpc_scan scan;
    check_footers(vpc, check);
    if (vpc->footer.type == VPC_FIXED) {
        check->image_end_offset = vpc->file_size;
        return 0;
    }
    int status = vpc_bat_scan(vpc, report_fault, check, &scan, err);
    if (status)
        return status;
    report_rest(check);
    if ((check->repair & IMGTK_REPAIR_ERRORS) && (vpc->recovered || vpc->no_end_footer) && scan.faults == 0)
        status = repair_footer(vpc, &scan, check, err);
    leaks_report(check, vpc->file, "blocks", scan.leaked);
    check->image_end_offset = scan.end + VPC_FOOTER_SIZE;
    check->total_clusters = vpc->blocks;
    check->allocated_clusters = scan.allocated;
    return status;
}
