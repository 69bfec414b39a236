/* What `check -r all` sets right: a log that was not replayed, and damaged copies of the header and the region table. */
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

static uint64_t header_offset(unsigned number)
{
    return number == 1 ? VHDX_HEADER_1_OFFSET : VHDX_HEADER_2_OFFSET;
}

/* ---- The log ---------------------------------------------------------------- */

static bool overlaps(const struct vhdx_patch *patch, uint64_t start, uint64_t length)
{
    return patch->start < start + length && start < patch->end;
}

/* A log is not to change the identifier, the headers and itself: then it could not be replayed a second time. */
static bool is_repeatable(const struct vhdx_image *image)
{
    const struct vhdx_header *header = &image->header.header;
    for (size_t i = 0; i < image->overlay.count; i++)
        if (overlaps(&image->overlay.patches[i], 0, VHDX_REGION_1_OFFSET) ||
            overlaps(&image->overlay.patches[i], header->log_offset, header->log_length))
            return false;
    return true;
}

static int write_patch(struct vhdx_image *image, const struct vhdx_patch *patch, struct imgtk_error *err)
{
    uint8_t sector[VHDX_LOG_SECTOR];
    uint64_t length = imgtk_min_u64(patch->end, image->file_size) - patch->start;
    if (patch->source == 0)
        return imgtk_storage_zero(image->file, patch->start, length, 0, err);
    int status = vhdx_file_read(image, sector, (size_t)length, patch->start, err);
    return status ? status : imgtk_storage_pwrite(image->file, sector, (size_t)length, patch->start, err);
}

static int write_patches(struct vhdx_image *image, struct imgtk_error *err)
{
    int status = 0;
    if (image->file_size > image->stored_size)
        status = imgtk_storage_truncate(image->file, image->file_size, err);
    for (size_t i = 0; i < image->overlay.count && !status; i++)
        if (image->overlay.patches[i].start < image->file_size)
            status = write_patch(image, &image->overlay.patches[i], err);
    return status ? status : imgtk_storage_flush(image->file, err);
}

/* ---- Copies ------------------------------------------------------------------- */

/* The header that is in use goes, changed, to the place of the other one, and is the one in use from then on. */
static int write_other_header(struct vhdx_image *image, const struct vhdx_guid *file_write, struct imgtk_error *err)
{
    uint8_t bytes[VHDX_HEADER_SIZE];
    struct vhdx_header_choice *choice = &image->header;
    int status = imgtk_storage_pread(image->file, bytes, sizeof(bytes), header_offset(choice->number), err);
    if (status)
        return status;
    imgtk_put_le64(bytes + VHDX_HEADER_SEQUENCE, choice->header.sequence + 1);
    memcpy(bytes + VHDX_HEADER_FILE_WRITE_GUID, file_write->bytes, sizeof(file_write->bytes));
    memset(bytes + VHDX_HEADER_LOG_GUID, 0, sizeof(file_write->bytes));
    vhdx_seal(bytes, sizeof(bytes));
    unsigned other = choice->number == 1 ? 2 : 1;
    status = imgtk_storage_pwrite(image->file, bytes, sizeof(bytes), header_offset(other), err);
    if (!status)
        status = imgtk_storage_flush(image->file, err);
    if (status)
        return status;
    choice->header.sequence++;
    choice->number = other;
    return 0;
}

/* Both, one after the other: whenever it ends, one of them is good. */
int vhdx_headers_renew(struct vhdx_image *image, struct imgtk_error *err)
{
    struct vhdx_guid file_write;
    int status = vhdx_guid_random(&file_write, err);
    if (!status)
        status = write_other_header(image, &file_write, err);
    if (!status)
        status = write_other_header(image, &file_write, err);
    if (status)
        return status;
    memset(&image->header.header.log_guid, 0, sizeof(image->header.header.log_guid));
    image->header.header.file_write = file_write;
    image->header.damaged = 0;
    return 0;
}

static int write_region_table(struct vhdx_image *image, struct imgtk_error *err)
{
    bool first = image->regions.damaged == 1;
    uint8_t *table = malloc(VHDX_REGION_TABLE_SIZE);
    if (!table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the region table");
    int status = imgtk_storage_pread(image->file, table, VHDX_REGION_TABLE_SIZE,
                                     first ? VHDX_REGION_2_OFFSET : VHDX_REGION_1_OFFSET, err);
    if (!status)
        status = imgtk_storage_pwrite(image->file, table, VHDX_REGION_TABLE_SIZE,
                                      first ? VHDX_REGION_1_OFFSET : VHDX_REGION_2_OFFSET, err);
    free(table);
    if (!status)
        status = imgtk_storage_flush(image->file, err);
    if (!status)
        image->regions.damaged = 0;
    return status;
}

/* ---- All of it ------------------------------------------------------------------ */

static void forget_log(struct vhdx_image *image)
{
    vhdx_overlay_free(&image->overlay);
    image->stored_size = image->file_size;
    image->replayed = false;
}

int vhdx_repair(struct vhdx_image *image, struct imgtk_check *check, struct imgtk_error *err)
{
    bool headers = image->replayed || image->header.damaged, regions = image->regions.damaged;
    uint64_t found = (image->header.damaged != 0) + (uint64_t)regions;
    if (image->replayed && !is_repeatable(image)) {
        check->report(check->context, "the log is not replayed: it changes the headers, or itself");
        return 0;
    }
    uint64_t fixed = found + image->replayed; /* a log is no corruption, but what is done about it counts as one */
    int status = image->replayed ? write_patches(image, err) : 0;
    if (!status && headers)
        status = vhdx_headers_renew(image, err);
    if (status)
        return status;
    forget_log(image);
    if (regions)
        status = write_region_table(image, err);
    if (status)
        return status;
    check->corruptions -= found;
    check->corruptions_fixed += fixed;
    return 0;
}
