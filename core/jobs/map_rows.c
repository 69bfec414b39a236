#include "map_rows.h"

#include "chain/image_internal.h"

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

int map_rows_end(struct map_rows *rows, struct imgtk_error *err)
{
    const struct imgtk_map *job = rows->job;
    if (rows->row.extent.length == 0)
        return 0;
    int status = job->allocation_depth ? tell_by_depth(job, &rows->row, err) : job->row(job->context, &rows->row);
    rows->row.extent.length = 0;
    return status;
}

int map_rows_add(struct map_rows *rows, const struct imgtk_chain_extent *piece, struct imgtk_error *err)
{
    struct imgtk_chain_extent *row = &rows->row;
    if (row->extent.length && row->start + row->extent.length == piece->start && walk_continues(row, piece)) {
        row->extent.length += piece->extent.length;
        return 0;
    }
    int status = map_rows_end(rows, err);
    *row = *piece;
    return status;
}
