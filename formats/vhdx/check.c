#include <stdio.h>
#include <string.h>

#include "../common/leaks.h"
#include "imgtk/bytes.h"
#include "vhdx.h"

/* Whatever the number of faults, nobody reads more; they are all counted. */
enum { MAX_REPORTS = 1000 };

static void report(struct imgtk_check *check, const char *message)
{
    if (check->corruptions++ < MAX_REPORTS)
        check->report(check->context, message);
}

static int count_finding(void *context, const struct imgtk_error *fault)
{
    report(context, fault->message);
    return 0;
}

static void check_copies(const struct vhdx_image *image, struct imgtk_check *check)
{
    char text[64];
    if (image->header.damaged) {
        snprintf(text, sizeof(text), "header %u is damaged, the other one is used", image->header.damaged);
        report(check, text);
    }
    if (image->regions.damaged) {
        snprintf(text, sizeof(text), "region table %u is damaged, the other one is used", image->regions.damaged);
        report(check, text);
    }
}

/* What [MS-VHDX] calls reserved in the structures that are in use. */
static int check_reserved(struct vhdx_image *image, struct imgtk_check *check, struct imgtk_error *err)
{
    uint8_t header[VHDX_HEADER_SIZE], table[VHDX_REGION_ENTRIES];
    bool second_header = image->header.number == 2, second_table = image->regions.damaged == 1;
    int status = imgtk_storage_pread(image->file, header, sizeof(header),
                                     second_header ? VHDX_HEADER_2_OFFSET : VHDX_HEADER_1_OFFSET, err);
    if (!status)
        status = vhdx_file_read(image, table, sizeof(table), second_table ? VHDX_REGION_2_OFFSET : VHDX_REGION_1_OFFSET,
                                err);
    if (status)
        return status;
    if (!imgtk_is_zero(header + VHDX_HEADER_RESERVED, VHDX_HEADER_SIZE - VHDX_HEADER_RESERVED))
        report(check, "the header has reserved bits set");
    if (!imgtk_is_zero(table + VHDX_REGION_RESERVED, VHDX_REGION_ENTRIES - VHDX_REGION_RESERVED))
        report(check, "the region table has reserved bits set");
    return 0;
}

static const char *why_not_cut(const struct vhdx_image *image, const struct imgtk_check *check)
{
    static const struct vhdx_guid none = { { 0 } };
    if (check->corruptions > 0)
        return "the image has other faults";
    if (image->replayed || memcmp(&image->header.header.log_guid, &none, sizeof(none)) != 0)
        return "the log has not been replayed";
    if (image->regions.other_length > 0)
        return "the file has regions of an unknown kind";
    return NULL;
}

static int cut_leaks(struct vhdx_image *image, const struct vhdx_scan *scan, struct imgtk_check *check,
                     struct imgtk_error *err)
{
    struct leaks_tail tail = { scan->named_end, scan->leaked_behind, why_not_cut(image, check) };
    if (!leaks_can_cut(check, image->file, &tail))
        return 0;
    int status = vhdx_headers_renew(image, err);
    if (!status)
        status = leaks_cut(check, image->file, &tail, err);
    if (!status)
        image->stored_size = image->file_size = tail.end;
    return status;
}

int vhdx_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vhdx_image *image = handle;
    struct vhdx_scan scan = { .finding = count_finding, .context = check, .strict = true };
    int status = 0;
    check_copies(image, check);
    if (check->repair & IMGTK_REPAIR_ERRORS)
        status = vhdx_repair(image, check, err);
    if (!status)
        status = check_reserved(image, check, err);
    if (!status)
        status = vhdx_scan(image, &scan, err);
    if (!status)
        leaks_report(check, image->file, "blocks", scan.leaked);
    if (!status)
        status = cut_leaks(image, &scan, check, err);
    check->total_clusters = image->block_count;
    check->allocated_clusters = scan.allocated;
    check->fragmented_clusters = scan.fragmented;
    check->image_end_offset = scan.end;
    return status;
}
