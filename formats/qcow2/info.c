/* What `info` tells beyond what every image has; names are qemu-img's. */
#include "qcow2.h"

static int tell_bitmap(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err)
{
    (void)err;
    struct imgtk_info *info = context;
    imgtk_info_begin_object(info, NULL);
    imgtk_info_begin_list(info, "flags");
    if (bitmap->flags & QCOW2_BITMAP_IN_USE)
        imgtk_info_text(info, NULL, "in-use");
    if (bitmap->flags & QCOW2_BITMAP_AUTO)
        imgtk_info_text(info, NULL, "auto");
    imgtk_info_end(info);
    imgtk_info_text(info, "name", bitmap->name);
    imgtk_info_number(info, "granularity", UINT64_C(1) << bitmap->granularity_bits);
    imgtk_info_end(info);
    return 0;
}

static int tell_bitmaps(struct qcow2 *image, struct imgtk_info *info, struct imgtk_error *err)
{
    if (image->extensions.bitmaps.count == 0)
        return 0;
    imgtk_info_begin_list(info, "bitmaps");
    int status = qcow2_bitmaps_walk(image, tell_bitmap, info, err);
    imgtk_info_end(info);
    return status;
}

static int tell_snapshot(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err)
{
    (void)err;
    struct imgtk_info *info = context;
    imgtk_info_begin_object(info, NULL);
    if (snapshot->has_icount)
        imgtk_info_number(info, "icount", snapshot->icount);
    imgtk_info_number(info, "vm-clock-nsec", snapshot->vm_clock_nsec % 1000000000);
    imgtk_info_text(info, "name", snapshot->name);
    imgtk_info_number(info, "date-sec", snapshot->date_sec);
    imgtk_info_number(info, "date-nsec", snapshot->date_nsec);
    imgtk_info_number(info, "vm-clock-sec", snapshot->vm_clock_nsec / 1000000000);
    imgtk_info_text(info, "id", snapshot->id);
    imgtk_info_number(info, "vm-state-size", snapshot->vm_state_size);
    imgtk_info_end(info);
    return 0;
}

static void tell_data_file(const struct qcow2 *image, struct imgtk_info *info)
{
    if (!(image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return;
    imgtk_info_text(info, "data-file", image->extensions.data_file);
    imgtk_info_bool(info, "data-file-raw", image->header.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
}

static int tell_specific(struct qcow2 *image, struct imgtk_info *info, struct imgtk_error *err)
{
    const struct qcow2_header *header = &image->header;
    bool v3 = header->version >= 3;
    imgtk_info_text(info, "compat", v3 ? "1.1" : "0.10");
    imgtk_info_text(info, "compression-type", header->compression_type == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    if (v3)
        imgtk_info_bool(info, "lazy-refcounts", header->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
    int status = tell_bitmaps(image, info, err);
    if (status != 0)
        return status;
    imgtk_info_number(info, "refcount-bits", UINT64_C(1) << header->refcount_order);
    if (v3) {
        tell_data_file(image, info);
        imgtk_info_bool(info, "corrupt", header->incompatible & QCOW2_INCOMPAT_CORRUPT);
        imgtk_info_bool(info, "extended-l2", header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    }
    return 0;
}

int qcow2_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    struct qcow2 *image = handle;
    out->cluster_size = image->geometry.cluster_size;
    out->dirty = image->header.incompatible & QCOW2_INCOMPAT_DIRTY;
    out->can_have_bitmaps = image->header.version >= 3;
    int status = tell_specific(image, out->specific, err);
    return status == 0 ? qcow2_snapshots_walk(image, tell_snapshot, out->snapshots, NULL, err) : status;
}
