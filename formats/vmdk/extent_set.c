/* The extents of an image: which files they are in and which part of the disk they hold. */
#include <stdlib.h>
#include <string.h>

#include "vmdk.h"

static enum vmdk_sparse_format sparse_format(enum vmdk_extent_type type)
{
    return type == VMDK_TYPE_COWD ? VMDK_COWD : type == VMDK_TYPE_SESPARSE ? VMDK_SESPARSE : VMDK_HOSTED;
}

static int check_flat(const struct vmdk_extent *extent, struct imgtk_error *err)
{
    if (imgtk_range_fits(extent->host_offset, extent->length, extent->file_size))
        return 0;
    return imgtk_fail(err, IMGTK_ECORRUPT, "extent '%s' needs %llu bytes from offset %llu; its file has %llu",
                      extent->name, (unsigned long long)extent->length, (unsigned long long)extent->host_offset,
                      (unsigned long long)extent->file_size);
}

static int check_sparse(struct vmdk_image *image, struct vmdk_extent *extent, struct imgtk_error *err)
{
    if (extent->sparse.descriptor_only)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the sparse extent has a capacity of 0 sectors");
    if (extent->sparse.capacity < extent->length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "an extent has %llu bytes by the descriptor, %llu by its own header",
                          (unsigned long long)extent->length, (unsigned long long)extent->sparse.capacity);
    return vmdk_gd_load(image, extent, err);
}

static int open_reference(struct vmdk_image *image, const struct imgtk_open *args, struct vmdk_extent *extent,
                          struct imgtk_error *err)
{
    int status = imgtk_reference_open(args->refs, extent->name, 0, &extent->file, err);
    if (status)
        return status;
    extent->owns_file = true;
    status = imgtk_storage_size(extent->file, &extent->file_size, err);
    if (status)
        return status;
    if (extent->type == VMDK_TYPE_FLAT)
        return check_flat(extent, err);
    status = vmdk_sparse_read(extent->file, extent->file_size, sparse_format(extent->type), &extent->sparse, err);
    if (!status)
        status = check_sparse(image, extent, err);
    return status ? imgtk_fail_prefix(err, "extent '%s'", extent->name) : 0;
}

static int open_self(struct vmdk_image *image, struct vmdk_extent *extent, const struct vmdk_sparse *self,
                     struct imgtk_error *err)
{
    if (extent->type != VMDK_TYPE_SPARSE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the embedded descriptor calls its own extent '%s', not SPARSE",
                          extent->type_text);
    extent->file = image->file;
    extent->sparse = *self;
    int status = imgtk_storage_size(extent->file, &extent->file_size, err);
    return status ? status : check_sparse(image, extent, err);
}

static int append_extent(struct vmdk_image *image, const struct vmdk_line *line, struct imgtk_error *err)
{
    struct vmdk_extent *extent = &image->extents[image->extent_count];
    extent->type = line->type;
    extent->type_text = line->type_text;
    extent->name = line->name;
    extent->start = image->size;
    extent->length = line->length;
    extent->host_offset = line->offset;
    if (line->length > VMDK_MAX_SIZE - image->size)
        return imgtk_fail(err, IMGTK_ELIMIT, "the extents together are larger than the limit of %llu bytes",
                          (unsigned long long)VMDK_MAX_SIZE);
    image->size += line->length;
    image->extent_count++;
    return 0;
}

static int open_line(struct vmdk_image *image, const struct imgtk_open *args, const struct vmdk_line *line,
                     const struct vmdk_sparse *self, struct imgtk_error *err)
{
    int status = append_extent(image, line, err);
    if (status)
        return status;
    struct vmdk_extent *extent = &image->extents[image->extent_count - 1];
    if (self)
        return open_self(image, extent, self, err);
    if (extent->type == VMDK_TYPE_ZERO || (args->flags & IMGTK_OPEN_NO_REFERENCES))
        return 0;
    return open_reference(image, args, extent, err);
}

int vmdk_extents_open(struct vmdk_image *image, const struct imgtk_open *args, const struct vmdk_sparse *self,
                      struct imgtk_error *err)
{
    const struct vmdk_descriptor *descriptor = &image->descriptor;
    bool monolithic = self && descriptor->line_count <= 1;
    size_t count = monolithic ? 1 : descriptor->line_count;
    if (count == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the descriptor lists no extent");
    image->extents = calloc(count, sizeof(*image->extents));
    if (!image->extents)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for %zu extents", count);
    if (monolithic) {
        /* The header decides, whatever name and length the line has: files get renamed. */
        struct vmdk_line line = { .type = VMDK_TYPE_SPARSE, .type_text = "", .length = self->capacity,
                                  .name = imgtk_storage_name(image->file) };
        return open_line(image, args, &line, self, err);
    }
    for (size_t i = 0; i < count; i++) {
        int status = open_line(image, args, &descriptor->lines[i], i == 0 ? self : NULL, err);
        if (status)
            return status;
    }
    return 0;
}

void vmdk_extents_close(struct vmdk_image *image)
{
    for (size_t i = 0; i < image->extent_count; i++) {
        if (image->extents[i].owns_file)
            imgtk_storage_close(image->extents[i].file);
        free(image->extents[i].gd);
    }
    free(image->extents);
}

struct vmdk_extent *vmdk_extent_find(struct vmdk_image *image, uint64_t offset)
{
    size_t low = 0, high = image->extent_count - 1;
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (image->extents[middle].start <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    return &image->extents[low];
}
