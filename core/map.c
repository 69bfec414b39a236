#include "imgtk/bytes.h"
#include "imgtk/jobs.h"
#include "map_differences.h"

/* Also shortens the row to the range for which it holds. A storage may be a chain itself: the server's. */
static int find_depth(struct imgtk_chain_extent *row, struct imgtk_error *err)
{
    const struct imgtk_extent *extent = &row->extent;
    row->allocation_depth = row->present ? (uint32_t)row->depth + 1 : 0;
    if (!row->present || !(extent->flags & IMGTK_EXTENT_PLAIN) ||
        !(imgtk_storage_flags(extent->file) & IMGTK_STORAGE_TELLS_DEPTH))
        return 0;
    struct imgtk_depth first = { 0 }, next;
    uint64_t known = 0;
    for (; known < extent->length; known += next.length) {
        int status = imgtk_storage_depth(extent->file, extent->host_offset + known, extent->length - known, &next, err);
        if (status)
            return imgtk_fail_prefix(err, "%s", imgtk_storage_name(extent->file));
        if (known == 0)
            first = next;
        else if (next.depth != first.depth)
            break;
    }
    row->extent.length = known;
    row->allocation_depth = first.depth ? (uint32_t)row->depth + first.depth : 0;
    return 0;
}

static int tell_by_depth(const struct imgtk_map *job, const struct imgtk_chain_extent *extent, struct imgtk_error *err)
{
    struct imgtk_chain_extent row = *extent;
    int status = 0;
    for (uint64_t left = extent->extent.length; !status && left > 0; left -= row.extent.length) {
        row.extent.length = left;
        status = find_depth(&row, err);
        if (!status)
            status = job->row(job->context, &row);
        row.start += row.extent.length;
        row.extent.host_offset += row.extent.length;
    }
    return status;
}

int imgtk_map(const struct imgtk_map *job, struct imgtk_error *err)
{
    uint64_t size = imgtk_image_size(job->image);
    if (job->start > size)
        return imgtk_fail(err, IMGTK_EINVAL, "start offset %llu is beyond the end of the image at %llu",
                          (unsigned long long)job->start, (unsigned long long)size);
    if (job->relative_to)
        return map_differences(job, err);
    uint64_t end = job->start + imgtk_min_u64(job->length, size - job->start);
    struct imgtk_walk *walk;
    int status = imgtk_walk_new(job->image, &walk, err);
    if (status)
        return status;
    for (uint64_t offset = job->start; !status && offset < end;) {
        struct imgtk_chain_extent extent;
        status = imgtk_walk_merged(walk, offset, end - offset, &extent, err);
        if (!status)
            status = job->allocation_depth ? tell_by_depth(job, &extent, err) : job->row(job->context, &extent);
        offset += extent.extent.length;
    }
    imgtk_walk_free(walk);
    return status;
}
