/* Writing flat and sparse extents: places are chosen in turn, data go there outside of it. */
#include <string.h>

#include "writer.h"

static bool is_flat(const struct vmdk_writer *writer)
{
    return writer->subformat == VMDK_MONOLITHIC_FLAT || writer->subformat == VMDK_SPLIT_FLAT;
}

static struct vmdk_part *part_at(struct vmdk_writer *writer, uint64_t offset)
{
    return &writer->parts[writer->part_count > 1 ? offset / VMDK_SPLIT_SIZE : 0];
}

/* ---- Grain tables ---------------------------------------------------------------- */

int vmdk_window_flush(struct vmdk_window *window, struct imgtk_error *err)
{
    if (!window->part || !window->changed)
        return 0;
    const struct vmdk_tables *tables = &window->part->tables;
    uint64_t within = window->table * VMDK_GT_BYTES;
    window->changed = false;
    int status = imgtk_storage_pwrite(window->part->file, window->entries, VMDK_GT_BYTES, tables->rgt_offset + within,
                                      err);
    return status ? status : imgtk_storage_pwrite(window->part->file, window->entries, VMDK_GT_BYTES,
                                                  tables->gt_offset + within, err);
}

/* Guest order means that a table that was left is not entered again, so none is ever read back. */
static int move_window(struct vmdk_window *window, struct vmdk_part *part, uint64_t table, struct imgtk_error *err)
{
    if (window->part == part && window->table == table)
        return 0;
    if (window->part && (part < window->part || (part == window->part && table < window->table)))
        return imgtk_fail(err, IMGTK_EINVAL, "grains must be written in guest order");
    int status = vmdk_window_flush(window, err);
    window->part = part;
    window->table = table;
    memset(window->entries, 0, sizeof(window->entries));
    return status;
}

/* Grains [first, first + count) of a part lie from host on, or are zeroed grains where host is 0. */
static int record(struct vmdk_writer *writer, struct vmdk_part *part, uint64_t first, uint64_t count, uint64_t host,
                  struct imgtk_error *err)
{
    for (uint64_t i = 0; i < count; i++) {
        int status = move_window(&writer->window, part, (first + i) / VMDK_GTES, err);
        if (status)
            return status;
        uint32_t entry = host ? (uint32_t)((host + i * VMDK_GRAIN_SIZE) / VMDK_SECTOR) : VMDK_GTE_ZERO;
        imgtk_put_le32(writer->window.entries + (first + i) % VMDK_GTES * 4, entry);
        writer->window.changed = true;
    }
    return 0;
}

/* ---- Places ------------------------------------------------------------------------ */

/* A piece of a request that lies in one part. */
struct segment {
    struct vmdk_part *part;
    uint64_t offset, length; /* of the disk */
    uint64_t host;           /* 0 in a sparse part: zeroed grains, nothing to write */
};

static struct segment cut(struct vmdk_writer *writer, uint64_t offset, uint64_t length)
{
    struct vmdk_part *part = part_at(writer, offset);
    uint64_t left = part->start + part->length - offset;
    return (struct segment){ .part = part, .offset = offset, .length = imgtk_min_u64(length, left),
                             .host = offset - part->start };
}

static int allocate(struct vmdk_writer *writer, struct segment *segment, struct imgtk_error *err)
{
    struct vmdk_part *part = segment->part;
    uint64_t grains = imgtk_div_round_up(segment->length, VMDK_GRAIN_SIZE);
    segment->host = part->next;
    part->next += grains * VMDK_GRAIN_SIZE;
    if (part->next > VMDK_MAX_HOST)
        return imgtk_fail(err, IMGTK_ELIMIT, "a sparse extent's file would pass the limit of %llu bytes",
                          (unsigned long long)VMDK_MAX_HOST);
    return record(writer, part, (segment->offset - part->start) / VMDK_GRAIN_SIZE, grains, segment->host, err);
}

/* The last grain of a disk may be cut; its file has it whole. */
static int clear_tail(const struct segment *segment, struct imgtk_error *err)
{
    uint64_t tail = imgtk_round_up(segment->length, VMDK_GRAIN_SIZE) - segment->length;
    if (tail == 0 || (imgtk_storage_flags(segment->part->file) & IMGTK_STORAGE_READS_ZERO))
        return 0;
    return imgtk_storage_zero(segment->part->file, segment->host + segment->length, tail, 0, err);
}

/* ---- Ops ----------------------------------------------------------------------------- */

/* A write is far smaller than a part, so it touches two at most. */
static int choose_places(struct vmdk_writer *writer, const struct imgtk_write *write, struct segment segments[2],
                         struct imgtk_error *err)
{
    uint64_t length = imgtk_min_u64(write->length, writer->size - write->offset);
    segments[0] = cut(writer, write->offset, length);
    length -= segments[0].length;
    segments[1] = (struct segment){ 0 };
    if (length > 0)
        segments[1] = cut(writer, write->offset + segments[0].length, length);
    if (is_flat(writer))
        return 0;
    int status = imgtk_turn_begin(write->turn, err);
    if (status)
        return status;
    for (size_t i = 0; !status && i < 2 && segments[i].part; i++)
        status = allocate(writer, &segments[i], err);
    imgtk_turn_end(write->turn);
    return status;
}

int vmdk_write(void *handle, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct vmdk_writer *writer = handle;
    if (writer->subformat == VMDK_STREAM)
        return vmdk_stream_write(writer, write, err);
    struct segment segments[2];
    int status = choose_places(writer, write, segments, err);
    const uint8_t *buf = write->buf;
    for (size_t i = 0; !status && i < 2 && segments[i].part; i++) {
        status = imgtk_storage_pwrite(segments[i].part->file, buf, (size_t)segments[i].length, segments[i].host, err);
        if (!status && !is_flat(writer))
            status = clear_tail(&segments[i], err);
        buf += segments[i].length;
    }
    return status;
}

int vmdk_place(void *handle, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
               struct imgtk_error *err)
{
    struct vmdk_writer *writer = handle;
    if (writer->subformat == VMDK_STREAM)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "streamOptimized compresses what it stores");
    if (cut(writer, write->offset, write->length).length < write->length)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the range lies in two extents");
    struct segment segments[2];
    int status = choose_places(writer, write, segments, err);
    if (!status && !is_flat(writer))
        status = clear_tail(&segments[0], err);
    *file = segments[0].part->file;
    *host_offset = segments[0].host;
    return status;
}

static int zero_segment(struct vmdk_writer *writer, struct segment *segment, struct imgtk_error *err)
{
    if (is_flat(writer))
        return imgtk_storage_zero(segment->part->file, segment->host, segment->length, writer->zero_flags, err);
    if (writer->zeroed_grain)
        return record(writer, segment->part, (segment->offset - segment->part->start) / VMDK_GRAIN_SIZE,
                      imgtk_div_round_up(segment->length, VMDK_GRAIN_SIZE), 0, err);
    int status = allocate(writer, segment, err);
    return status ? status : imgtk_storage_zero(segment->part->file, segment->host,
                                                imgtk_round_up(segment->length, VMDK_GRAIN_SIZE), writer->zero_flags,
                                                err);
}

int vmdk_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err)
{
    struct vmdk_writer *writer = handle;
    if (!writer->zero_matters)
        return 0;
    length = imgtk_min_u64(length, writer->size - offset);
    if (writer->subformat == VMDK_STREAM)
        return vmdk_stream_zero(writer, offset, length, turn, err);
    int status = imgtk_turn_begin(turn, err);
    if (status)
        return status;
    while (!status && length > 0) {
        struct segment segment = cut(writer, offset, length);
        status = zero_segment(writer, &segment, err);
        offset += segment.length;
        length -= segment.length;
    }
    imgtk_turn_end(turn);
    return status;
}

/* ---- The end of a sparse part ---------------------------------------------------------- */

static int write_directory(const struct vmdk_part *part, uint64_t gd_offset, uint64_t gt_offset,
                           struct imgtk_error *err)
{
    uint8_t buf[8192];
    uint64_t done = 0;
    while (done < part->tables.gd_entries) {
        uint64_t count = imgtk_min_u64(sizeof(buf) / 4, part->tables.gd_entries - done);
        for (uint64_t i = 0; i < count; i++)
            imgtk_put_le32(buf + i * 4, (uint32_t)((gt_offset + (done + i) * VMDK_GT_BYTES) / VMDK_SECTOR));
        int status = imgtk_storage_pwrite(part->file, buf, (size_t)count * 4, gd_offset + done * 4, err);
        if (status)
            return status;
        done += count;
    }
    return 0;
}

static int write_header(const struct vmdk_writer *writer, const struct vmdk_part *part, struct imgtk_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    struct vmdk_header_source source = {
        .version = writer->zeroed_grain ? 2 : 1,
        .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | (writer->zeroed_grain ? VMDK_FLAG_ZERO_GRAINS : 0u),
        .capacity = part->length,
        .descriptor_sectors = part->tables.descriptor_bytes / VMDK_SECTOR,
        .rgd_sector = part->tables.rgd_offset / VMDK_SECTOR,
        .gd_sector = part->tables.gd_offset / VMDK_SECTOR,
        .overhead_sectors = part->tables.data_offset / VMDK_SECTOR };
    vmdk_header_format(&source, sector);
    return imgtk_storage_pwrite(part->file, sector, sizeof(sector), 0, err);
}

int vmdk_part_finish(struct vmdk_writer *writer, struct vmdk_part *part, const char *descriptor,
                     struct imgtk_error *err)
{
    int status = 0;
    if (!(imgtk_storage_flags(part->file) & IMGTK_STORAGE_FIXED_SIZE))
        status = imgtk_storage_truncate(part->file, part->next, err);
    if (!status)
        status = write_directory(part, part->tables.rgd_offset, part->tables.rgt_offset, err);
    if (!status)
        status = write_directory(part, part->tables.gd_offset, part->tables.gt_offset, err);
    if (!status && descriptor)
        status = imgtk_storage_pwrite(part->file, descriptor, strlen(descriptor), VMDK_HOSTED_HEADER_SIZE, err);
    return status ? status : write_header(writer, part, err);
}
