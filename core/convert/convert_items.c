/* Cutting the plan into items. */
#include "convert.h"
#include "imgtk/bytes.h"
#include "storage/storage.h"

#define COPY_MIN (64u << 10) /* below this a system call per piece costs more than it saves */
#define COPY_MAX (16u << 20) /* so that several workers share one large extent */
#define GAP_MIN (64u << 10)  /* a shorter hole between data is read with them: their zeroes are found anyway */

/* How much of a stretch is whole units; its end counts as one at the end of the disk. */
static uint64_t whole_units(const struct conversion *conversion, uint64_t offset, uint64_t length)
{
    if (offset + length == conversion->source.size)
        return length;
    uint64_t end = imgtk_round_down(offset + length, conversion->cut);
    return end > offset ? end - offset : 0;
}

static bool is_plain_data(const struct imgtk_extent *extent)
{
    return extent->kind == IMGTK_EXTENT_DATA && (extent->flags & IMGTK_EXTENT_PLAIN);
}

/* A target has data at a place that is its guest's modulo the unit, which is no smaller than copy_unit, or is that place. */
static bool can_copy(const struct conversion *conversion, const struct plan_stretch *stretch)
{
    const struct imgtk_extent *extent = &stretch->found.extent;
    return conversion->copy != COPY_BY_HAND && stretch->kind == PLAN_DATA && stretch->length >= COPY_MIN &&
           is_plain_data(extent) && storage_has_fd(extent->file) &&
           (extent->host_offset - stretch->found.start) % conversion->copy_unit == 0;
}

static uint64_t min_gap(const struct conversion *conversion)
{
    return conversion->cut > GAP_MIN ? conversion->cut : GAP_MIN;
}

/* A hole that is worth a gap between items, or zeroes that have to be said. */
static bool is_gap(const struct conversion *conversion, uint64_t offset, const struct plan_stretch *stretch)
{
    return stretch->kind != PLAN_DATA && (offset + stretch->length == conversion->source.size ||
                                          stretch->length >= min_gap(conversion));
}

/* Extends a data item over the following stretches, up to the next boundary, gap or copy. */
static int extend_data(struct conversion *conversion, struct item *item, uint64_t end, struct imgtk_error *err)
{
    uint64_t size = conversion->source.size;
    uint64_t boundary = imgtk_min_u64(size, imgtk_round_down(item->offset, conversion->item_size) +
                                                conversion->item_size);
    end = imgtk_min_u64(boundary, imgtk_round_up(end, conversion->cut));
    while (end < boundary) {
        struct plan_stretch stretch;
        int status = plan_stretch(&conversion->plan, end, &stretch, err);
        if (status)
            return status;
        if (is_gap(conversion, end, &stretch) || can_copy(conversion, &stretch))
            break;
        end = imgtk_min_u64(boundary, imgtk_round_up(end + stretch.length, conversion->cut));
    }
    item->length = end - item->offset;
    return 0;
}

static bool needs_zero(const struct conversion *conversion, enum plan_kind kind)
{
    return kind == PLAN_ZERO || (kind == PLAN_SKIP && !conversion->target.reads_zero && !conversion->base);
}

/* Of a stretch from which nothing is written the digest may have to hear nevertheless. */
static void take_unwritten(struct conversion *conversion, const struct plan_stretch *stretch, struct item *item)
{
    uint64_t boundary = imgtk_round_down(item->offset, conversion->item_size) + conversion->item_size;
    item->kind = stretch->found.extent.kind == IMGTK_EXTENT_DATA ? ITEM_READ : ITEM_SKIP;
    if (item->kind == ITEM_READ)
        item->length = imgtk_min_u64(item->length, boundary - item->offset);
}

/* A stretch without data: *emit tells whether anybody has to hear of it. */
static void take_gap(struct conversion *conversion, const struct plan_stretch *stretch, uint64_t whole,
                     struct item *item, bool *emit)
{
    item->kind = ITEM_ZERO;
    item->length = whole;
    *emit = true;
    if (needs_zero(conversion, stretch->kind))
        return;
    *emit = conversion->digest.tree != NULL;
    take_unwritten(conversion, stretch, item);
}

static void take_copy(struct item *item, const struct plan_stretch *stretch, uint64_t whole)
{
    item->kind = ITEM_COPY;
    item->length = imgtk_min_u64(whole, COPY_MAX - item->offset % COPY_MAX);
    item->from = stretch->found.extent.file;
    item->from_offset = stretch->found.extent.host_offset;
}

/* An item that lies plainly in one file need not be read to be written. */
static void note_place(struct item *item, const struct plan_stretch *stretch)
{
    const struct imgtk_extent *extent = &stretch->found.extent;
    if (!is_plain_data(extent) || stretch->length < item->length)
        return;
    item->from = extent->file;
    item->from_offset = extent->host_offset;
}

static int cut(struct conversion *conversion, struct item *item, bool *emit, struct imgtk_error *err)
{
    struct plan_stretch stretch;
    int status = plan_stretch(&conversion->plan, item->offset, &stretch, err);
    if (status)
        return status;
    uint64_t whole = whole_units(conversion, item->offset, stretch.length);
    *emit = true;
    if (whole > 0 && stretch.kind != PLAN_DATA) {
        take_gap(conversion, &stretch, whole, item, emit);
    } else if (whole > 0 && can_copy(conversion, &stretch)) {
        take_copy(item, &stretch, whole);
    } else {
        item->kind = ITEM_DATA;
        status = extend_data(conversion, item, item->offset + stretch.length, err);
        note_place(item, &stretch);
    }
    return status;
}

static int next_item_locked(struct conversion *conversion, struct item *out, bool *found, uint64_t *skipped,
                            struct imgtk_error *err)
{
    *found = false;
    while (!*found && conversion->position < conversion->source.size) {
        *out = (struct item){ .offset = conversion->position };
        int status = cut(conversion, out, found, err);
        if (status)
            return status;
        conversion->position += out->length;
        if (!*found)
            *skipped += out->length;
        else
            out->number = conversion->next_number++;
    }
    return 0;
}

int convert_next_item(struct conversion *conversion, struct item *out, bool *found, struct imgtk_error *err)
{
    uint64_t skipped = 0;
    pthread_mutex_lock(&conversion->lock);
    int status = next_item_locked(conversion, out, found, &skipped, err);
    pthread_mutex_unlock(&conversion->lock);
    if (!status && skipped > 0)
        status = convert_advance(conversion, skipped, 0, err);
    return status;
}
