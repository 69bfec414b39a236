#include <stdio.h>

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

int vhdx_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct vhdx_image *image = handle;
    struct vhdx_scan scan = { .finding = count_finding, .context = check };
    check_copies(image, check);
    int status = vhdx_scan(image, &scan, err);
    check->total_clusters = image->block_count;
    check->allocated_clusters = scan.allocated;
    check->fragmented_clusters = scan.fragmented;
    check->image_end_offset = scan.end;
    return status;
}
