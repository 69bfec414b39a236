#include <stdlib.h>
#include <string.h>

#include "vdi.h"

static int read_header(struct vdi *vdi, struct imgtk_error *err)
{
    uint8_t bytes[VDI_HEADER_BYTES] = { 0 };
    size_t done;
    int status = imgtk_storage_pread_some(vdi->file, bytes, sizeof(bytes), 0, &done, err);
    return status ? status : vdi_header_parse(bytes, &vdi->header, err);
}

static int check_table(struct vdi *vdi, struct imgtk_error *err)
{
    const struct vdi_header *header = &vdi->header;
    uint64_t size;
    vdi->blocks = (uint32_t)imgtk_div_round_up(header->disk_size, header->block_size);
    size = (uint64_t)vdi->blocks * 4;
    if (!imgtk_range_fits(header->table_offset, size, vdi->file_size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the block table of %llu bytes at %llu does not fit the file's %llu",
                          (unsigned long long)size, (unsigned long long)header->table_offset,
                          (unsigned long long)vdi->file_size);
    if (header->table_offset < VDI_PREHEADER_SIZE || header->data_offset < header->table_offset + size)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the data at %llu lie over the block table of %llu bytes at %llu",
                          (unsigned long long)header->data_offset, (unsigned long long)size,
                          (unsigned long long)header->table_offset);
    return vdi_table_open(vdi, err);
}

static int refuse_fault(void *context, const struct imgtk_error *fault)
{
    return imgtk_fail(context, fault->status, "%s", fault->message);
}

static int load(struct vdi *vdi, const struct imgtk_open *args, struct imgtk_error *err)
{
    const char *parent = args->opts ? imgtk_opts_text(args->opts, "backing") : NULL;
    int status = imgtk_storage_size(vdi->file, &vdi->file_size, err);
    if (!status)
        status = read_header(vdi, err);
    if (!status)
        status = check_table(vdi, err);
    if (!status && !(args->flags & IMGTK_OPEN_CHECK)) {
        struct vdi_scan scan;
        status = vdi_table_scan(vdi, refuse_fault, err, &scan, err);
    }
    if (status)
        return status;
    uuid_to_text(vdi->header.uuid_link, vdi->parent_uuid);
    if (!parent)
        return 0;
    if (vdi->header.type != VDI_DIFFERENCING)
        return imgtk_fail(err, IMGTK_EINVAL, "backing: only a differencing image has a parent");
    vdi->parent = strdup(parent);
    return vdi->parent ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

int vdi_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    if (args->snapshot)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "VDI images have no internal snapshots");
    struct vdi *vdi = calloc(1, sizeof(*vdi));
    if (!vdi)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    vdi->file = args->file;
    vdi->no_references = (args->flags & IMGTK_OPEN_NO_REFERENCES) != 0;
    int status = load(vdi, args, err);
    if (status) {
        vdi_close(vdi);
        return status;
    }
    *handle = vdi;
    return 0;
}

void vdi_close(void *handle)
{
    struct vdi *vdi = handle;
    if (vdi->table)
        imgtk_cache_free(vdi->table);
    free(vdi->parent);
    free(vdi);
}
