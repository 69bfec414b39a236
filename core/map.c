#include "imgtk/bytes.h"
#include "imgtk/jobs.h"
#include "map_differences.h"

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
            status = job->row(job->context, &extent);
        offset += extent.extent.length;
    }
    imgtk_walk_free(walk);
    return status;
}
