/* Checking: the footers agree, and every block has a place of its own in the file. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

/* ---- Leaks at the end ------------------------------------------------------- */

static const char *why_not_cut(const struct vpc *vpc, const struct vpc_scan *scan, const struct imgtk_check *check,
                               uint64_t end)
{
    if (check->corruptions > 0)
        return "the image has other faults";
    if (scan->blocks_end == 0)
        return "there is no block, and what is behind the table may be another part of the image";
    if (memcmp(vpc->footer.creator, "tap", 4) == 0) /* a map of the blocks, which may lie anywhere */
        return "its writer keeps more in the file than the format describes";
    for (size_t i = 0; i < VPC_LOCATORS && vpc->footer.type == VPC_DIFFERENCING; i++)
        if (vpc->header.locators[i].length > 0 && vpc->header.locators[i].offset >= end)
            return "the name of the parent lies behind the blocks";
    return NULL;
}

static uint64_t named_end(const struct vpc *vpc, const struct vpc_scan *scan)
{
    uint64_t end = vpc->header.table_offset + (uint64_t)vpc->header.entries * 4;
    uint64_t header_end = vpc->footer.data_offset + VPC_HEADER_SIZE;
    end = imgtk_round_up(end > header_end ? end : header_end, VPC_SECTOR);
    return end > scan->blocks_end ? end : scan->blocks_end;
}

/* The footer's new place is in what is leaked, so that until the file is cut off behind it the old one is in force. */
static int cut_leaks(struct vpc *vpc, const struct vpc_scan *scan, struct imgtk_check *check, struct imgtk_error *err)
{
    uint8_t bytes[VPC_FOOTER_SIZE];
    uint64_t end = named_end(vpc, scan), block = (uint64_t)vpc->bitmap_size + vpc->header.block_size;
    struct leaks_tail tail = { .end = end + VPC_FOOTER_SIZE, .unsafe = why_not_cut(vpc, scan, check, end) };
    struct vpc_footer footer;
    if (vpc->file_size >= tail.end)
        tail.count = imgtk_min_u64((vpc->file_size - tail.end) / block, scan->leaked);
    if (!leaks_can_cut(check, vpc->file, &tail))
        return 0;
    int status = imgtk_storage_pread(vpc->file, bytes, sizeof(bytes), vpc->file_size - VPC_FOOTER_SIZE, err);
    if (status || vpc_footer_parse(bytes, &footer, NULL)) /* a footer of 511 bytes stays where it is */
        return status;
    status = imgtk_storage_pwrite(vpc->file, bytes, sizeof(bytes), end, err);
    if (!status)
        status = imgtk_storage_flush(vpc->file, err);
    if (!status)
        status = leaks_cut(check, vpc->file, &tail, err);
    if (!status)
        vpc->file_size = tail.end;
    return status;
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
    if (!status)
        status = cut_leaks(vpc, &scan, check, err);
    check->image_end_offset = scan.end + VPC_FOOTER_SIZE;
    check->total_clusters = vpc->blocks;
    check->allocated_clusters = scan.allocated;
    return status;
}
