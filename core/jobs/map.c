#include "imgtk/bytes.h"
#include "imgtk/jobs.h"
#include "map_ahead.h"
#include "map_differences.h"
#include "map_rows.h"

#define ALONE 64u /* extents for which no thread is started: most disks have fewer, or hardly more */
/* Of so many extents; where they cover less, threads would get in each other's way at the driver's tables. */
#define WIDE (UINT64_C(64) << 20)

/* Walks from *offset to the end, or over that many extents. */
static int walk_rows(struct imgtk_walk *walk, uint64_t *offset, uint64_t end, uint64_t most, struct map_rows *rows,
                     struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t i = 0; !status && *offset < end && i < most; i++) {
        struct imgtk_chain_extent found;
        status = imgtk_walk_next(walk, *offset, end - *offset, &found, err);
        if (status)
            break;
        *offset += found.extent.length;
        status = map_rows_add(rows, &found, err);
    }
    return status;
}

static int take_parts(struct map_ahead *ahead, struct imgtk_walk *walk, uint64_t *offset, struct map_rows *rows,
                      struct imgtk_error *err)
{
    const struct map_part *part;
    int status = 0;
    while (!status && (part = map_ahead_next(ahead)) != NULL) {
        for (size_t i = 0; !status && i < part->count; i++)
            status = map_rows_add(rows, &part->extents[i], err);
        *offset = part->reached;
        if (!status)
            status = walk_rows(walk, offset, part->end, UINT64_MAX, rows, err);
    }
    return status;
}

static int map_range(const struct imgtk_map *job, struct imgtk_walk *walk, uint64_t end, struct imgtk_error *err)
{
    struct map_rows rows = { .job = job };
    uint64_t offset = job->start, before;
    int status;
    do {
        before = offset;
        status = walk_rows(walk, &offset, end, ALONE, &rows, err);
    } while (!status && offset < end && offset - before < WIDE);
    if (status)
        return status;
    struct map_ahead *ahead = offset < end ? map_ahead_new(job->image, offset, end) : NULL;
    if (ahead)
        status = take_parts(ahead, walk, &offset, &rows, err);
    map_ahead_free(ahead);
    if (!status)
        status = walk_rows(walk, &offset, end, UINT64_MAX, &rows, err);
    return status ? status : map_rows_end(&rows, err);
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
    status = map_range(job, walk, end, err);
    imgtk_walk_free(walk);
    return status;
}
