#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/crc.h"
#include "vhdx.h"

/* The log region: a ring of sectors. Entries may go on from its last sector to its first. */
struct log {
    struct imgtk_storage *file;
    const struct vhdx_header *header;
    uint64_t sectors;
    uint64_t budget; /* sectors that may still be read to verify entries */
};

struct entry {
    uint64_t sector;             /* within the ring */
    uint64_t sectors;
    uint64_t tail;               /* sector */
    uint64_t sequence;
    uint64_t descriptors, descriptor_sectors;
    uint64_t flushed_size, last_size;
};

/* Consecutive entries from `first` on. */
struct sequence {
    uint64_t first, count, sectors;
    struct entry head; /* the last of them */
};

struct patch_list {
    struct vhdx_patch *at;
    size_t count, capacity;
};

static uint64_t sector_offset(const struct log *log, uint64_t sector)
{
    return log->header->log_offset + sector % log->sectors * VHDX_LOG_SECTOR;
}

static int read_sector(const struct log *log, uint64_t sector, uint8_t out[VHDX_LOG_SECTOR], struct imgtk_error *err)
{
    return imgtk_storage_pread(log->file, out, VHDX_LOG_SECTOR, sector_offset(log, sector), err);
}

/* Whether the bytes begin an entry of this log; its checksum is not looked at. */
static bool parse_entry(const struct log *log, uint64_t sector, const uint8_t *bytes, struct entry *out)
{
    uint64_t length = imgtk_le32(bytes + VHDX_LOG_ENTRY_LENGTH), tail = imgtk_le32(bytes + VHDX_LOG_TAIL);
    if (imgtk_le32(bytes + VHDX_SIGNATURE) != VHDX_LOG_SIGNATURE ||
        !vhdx_guid_equal(&log->header->log_guid, bytes + VHDX_LOG_GUID))
        return false;
    if (length == 0 || length % VHDX_LOG_SECTOR || length > log->header->log_length ||
        tail % VHDX_LOG_SECTOR || tail >= log->header->log_length)
        return false;
    out->sector = sector % log->sectors;
    out->sectors = length / VHDX_LOG_SECTOR;
    out->tail = tail / VHDX_LOG_SECTOR;
    out->sequence = imgtk_le64(bytes + VHDX_LOG_SEQUENCE);
    out->descriptors = imgtk_le32(bytes + VHDX_LOG_DESCRIPTOR_COUNT);
    out->descriptor_sectors = imgtk_div_round_up(
        VHDX_LOG_HEADER_SIZE + out->descriptors * VHDX_LOG_DESCRIPTOR_SIZE, VHDX_LOG_SECTOR);
    out->flushed_size = imgtk_le64(bytes + VHDX_LOG_FLUSHED_OFFSET);
    out->last_size = imgtk_le64(bytes + VHDX_LOG_LAST_OFFSET);
    return out->sequence != 0 && out->descriptor_sectors <= out->sectors;
}

/* Sets *valid when an entry with a good checksum begins at the sector. */
static int verify_entry(struct log *log, uint64_t sector, struct entry *out, bool *valid, struct imgtk_error *err)
{
    uint8_t bytes[VHDX_LOG_SECTOR];
    *valid = false;
    int status = read_sector(log, sector, bytes, err);
    if (status || !parse_entry(log, sector, bytes, out))
        return status;
    if (out->sectors > log->budget)
        return imgtk_fail(err, IMGTK_ELIMIT, "the log of %" PRIu64 " bytes is full of entries that overlap",
                          log->header->log_length);
    log->budget -= out->sectors;
    uint32_t stored = imgtk_le32(bytes + VHDX_CHECKSUM);
    uint32_t crc = vhdx_checksum(bytes, VHDX_LOG_SECTOR);
    for (uint64_t i = 1; i < out->sectors; i++) {
        status = read_sector(log, sector + i, bytes, err);
        if (status)
            return status;
        crc = imgtk_crc32c(crc, bytes, VHDX_LOG_SECTOR);
    }
    *valid = crc == stored;
    return 0;
}

/* The longest run of valid entries with consecutive numbers that begins at the sector. */
static int follow(struct log *log, uint64_t first, struct sequence *out, struct imgtk_error *err)
{
    *out = (struct sequence){ .first = first };
    for (;;) {
        struct entry entry;
        bool valid;
        int status = verify_entry(log, first + out->sectors, &entry, &valid, err);
        if (status)
            return status;
        if (!valid || (out->count && entry.sequence != out->head.sequence + 1) ||
            entry.sectors > log->sectors - out->sectors)
            return 0;
        out->head = entry;
        out->count++;
        out->sectors += entry.sectors;
        if (out->sectors == log->sectors)
            return 0;
    }
}

/* The entry of the (verified) sequence that begins at `distance` sectors after its first. */
static int entry_in(const struct log *log, const struct sequence *sequence, uint64_t distance, struct entry *out,
                    struct imgtk_error *err)
{
    uint8_t bytes[VHDX_LOG_SECTOR];
    int status = read_sector(log, sequence->first + distance, bytes, err);
    if (!status && !parse_entry(log, sequence->first + distance, bytes, out))
        return imgtk_fail(err, IMGTK_ECHANGED, "the log changed while it was read");
    return status;
}

/* Cuts the sequence down to where its head says that it begins; *valid false when that is none of its entries. */
static int cut_to_tail(const struct log *log, struct sequence *sequence, bool *valid, struct imgtk_error *err)
{
    uint64_t wanted = (sequence->head.tail + log->sectors - sequence->first) % log->sectors;
    uint64_t distance = 0, skipped = 0;
    while (distance < wanted && skipped < sequence->count) {
        struct entry entry;
        int status = entry_in(log, sequence, distance, &entry, err);
        if (status)
            return status;
        distance += entry.sectors;
        skipped++;
    }
    *valid = distance == wanted && skipped < sequence->count;
    sequence->first = (sequence->first + distance) % log->sectors;
    sequence->count -= skipped;
    sequence->sectors -= distance;
    return 0;
}

/*
 * The active sequence: of all that are complete the one with the newest head.
 * A sequence that begins within another one has the same head, so the search
 * goes on behind it.
 */
static int find_active(struct log *log, struct sequence *active, struct imgtk_error *err)
{
    *active = (struct sequence){ 0 };
    for (uint64_t sector = 0; sector < log->sectors;) {
        struct sequence sequence;
        bool complete = false;
        int status = follow(log, sector, &sequence, err);
        sector += sequence.count ? sequence.sectors : 1;
        if (!status && sequence.count)
            status = cut_to_tail(log, &sequence, &complete, err);
        if (status)
            return status;
        if (complete && sequence.head.sequence > active->head.sequence)
            *active = sequence;
    }
    if (active->count == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the log is not empty, but holds no complete sequence of entries");
    return 0;
}

static int add_patch(struct patch_list *list, struct vhdx_patch patch, struct imgtk_error *err)
{
    if (list->count == VHDX_MAX_LOG_DESCRIPTORS)
        return imgtk_fail(err, IMGTK_ELIMIT, "the log has more than %d descriptors to replay",
                          VHDX_MAX_LOG_DESCRIPTORS);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        struct vhdx_patch *grown = realloc(list->at, capacity * sizeof(*grown));
        if (!grown)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu log descriptors", capacity);
        list->at = grown;
        list->capacity = capacity;
    }
    list->at[list->count++] = patch;
    return 0;
}

static int add_zero(struct patch_list *list, const uint8_t *descriptor, struct imgtk_error *err)
{
    uint64_t length = imgtk_le64(descriptor + VHDX_LOG_DESC_LEADING);
    uint64_t start = imgtk_le64(descriptor + VHDX_LOG_DESC_FILE_OFFSET);
    if (start % VHDX_LOG_SECTOR || length % VHDX_LOG_SECTOR || length == 0 ||
        !imgtk_range_fits(start, length, VHDX_MAX_FILE_SIZE))
        return imgtk_fail(err, IMGTK_ECORRUPT, "log descriptor zeroes %" PRIu64 " bytes at %" PRIu64
                          ", not whole sectors within 128 TiB", length, start);
    return add_patch(list, (struct vhdx_patch){ .start = start, .end = start + length }, err);
}

static int check_data_sector(const struct log *log, const struct entry *entry, uint64_t sector,
                             struct imgtk_error *err)
{
    uint8_t bytes[VHDX_LOG_SECTOR];
    int status = read_sector(log, sector, bytes, err);
    if (status)
        return status;
    uint64_t sequence = ((uint64_t)imgtk_le32(bytes + VHDX_LOG_DATA_SEQUENCE_HIGH) << 32) |
                        imgtk_le32(bytes + VHDX_LOG_DATA_SEQUENCE_LOW);
    if (imgtk_le32(bytes) != VHDX_LOG_DATA_SIGNATURE || sequence != entry->sequence)
        return imgtk_fail(err, IMGTK_ECORRUPT, "data sector %" PRIu64 " of log entry %" PRIu64
                          " is not one of its own", sector - entry->sector, entry->sequence);
    return 0;
}

static int add_data(const struct log *log, struct patch_list *list, const uint8_t *descriptor, uint64_t sector,
                    struct imgtk_error *err)
{
    uint64_t start = imgtk_le64(descriptor + VHDX_LOG_DESC_FILE_OFFSET);
    if (start % VHDX_LOG_SECTOR || !imgtk_range_fits(start, VHDX_LOG_SECTOR, VHDX_MAX_FILE_SIZE))
        return imgtk_fail(err, IMGTK_ECORRUPT, "log descriptor writes at %" PRIu64 ", not a sector within 128 TiB",
                          start);
    struct vhdx_patch patch = { .start = start, .end = start + VHDX_LOG_SECTOR, .source = sector_offset(log, sector) };
    memcpy(patch.leading, descriptor + VHDX_LOG_DESC_LEADING, sizeof(patch.leading));
    memcpy(patch.trailing, descriptor + VHDX_LOG_DESC_TRAILING, sizeof(patch.trailing));
    return add_patch(list, patch, err);
}

/* One descriptor; data sectors follow the descriptors in the same order, *next is the first not yet used. */
static int take_descriptor(const struct log *log, const struct entry *entry, const uint8_t *descriptor, uint64_t *next,
                           struct patch_list *list, struct imgtk_error *err)
{
    uint32_t signature = imgtk_le32(descriptor);
    if (imgtk_le64(descriptor + VHDX_LOG_DESC_SEQUENCE) != entry->sequence)
        return imgtk_fail(err, IMGTK_ECORRUPT, "log entry %" PRIu64 " has a descriptor of entry %" PRIu64,
                          entry->sequence, imgtk_le64(descriptor + VHDX_LOG_DESC_SEQUENCE));
    if (signature == VHDX_LOG_ZERO_SIGNATURE)
        return add_zero(list, descriptor, err);
    if (signature != VHDX_LOG_DESC_SIGNATURE)
        return imgtk_fail(err, IMGTK_ECORRUPT, "log entry %" PRIu64 " has a descriptor of unknown kind 0x%08" PRIx32,
                          entry->sequence, signature);
    if (*next == entry->sectors)
        return imgtk_fail(err, IMGTK_ECORRUPT, "log entry %" PRIu64 " describes more data than its %" PRIu64 " sectors",
                          entry->sequence, entry->sectors);
    uint64_t sector = entry->sector + (*next)++;
    int status = check_data_sector(log, entry, sector, err);
    return status ? status : add_data(log, list, descriptor, sector, err);
}

static int take_entry(const struct log *log, const struct entry *entry, struct patch_list *list,
                      struct imgtk_error *err)
{
    uint8_t bytes[VHDX_LOG_SECTOR];
    uint64_t next = entry->descriptor_sectors;
    for (uint64_t i = 0; i < entry->descriptors; i++) {
        uint64_t at = VHDX_LOG_HEADER_SIZE + i * VHDX_LOG_DESCRIPTOR_SIZE;
        int status = 0;
        if (i == 0 || at % VHDX_LOG_SECTOR == 0)
            status = read_sector(log, entry->sector + at / VHDX_LOG_SECTOR, bytes, err);
        if (!status)
            status = take_descriptor(log, entry, bytes + at % VHDX_LOG_SECTOR, &next, list, err);
        if (status)
            return status;
    }
    return 0;
}

static int take_entries(const struct log *log, const struct sequence *active, struct patch_list *list,
                        struct imgtk_error *err)
{
    uint64_t distance = 0;
    for (uint64_t i = 0; i < active->count; i++) {
        struct entry entry;
        int status = entry_in(log, active, distance, &entry, err);
        if (!status)
            status = take_entry(log, &entry, list, err);
        if (status)
            return status;
        distance += entry.sectors;
    }
    return 0;
}

static int check_sizes(const struct entry *head, uint64_t file_size, struct imgtk_error *err)
{
    if (file_size < head->flushed_size)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the file ends at byte %" PRIu64 ", but its log says that %" PRIu64
                          " were on disk", file_size, head->flushed_size);
    if (head->last_size > VHDX_MAX_FILE_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "the log extends the file to %" PRIu64 " bytes, at most 128 TiB can be",
                          head->last_size);
    return 0;
}

int vhdx_log_replay(struct imgtk_storage *file, const struct vhdx_header *header, uint64_t file_size,
                    struct vhdx_replay *out, struct imgtk_error *err)
{
    *out = (struct vhdx_replay){ .file_size = file_size };
    if (header->log_length > VHDX_MAX_REPLAY)
        return imgtk_fail(err, IMGTK_ELIMIT, "a log of %" PRIu64 " bytes to replay, at most 128 MiB are supported",
                          header->log_length);
    uint64_t sectors = header->log_length / VHDX_LOG_SECTOR;
    /* A healthy log is read about twice: from its beginning, and again when its newest sequence wraps. */
    struct log log = { file, header, sectors, 4 * sectors };
    struct sequence active;
    struct patch_list list = { 0 };
    int status = find_active(&log, &active, err);
    if (!status)
        status = check_sizes(&active.head, file_size, err);
    if (!status)
        status = take_entries(&log, &active, &list, err);
    if (status) {
        free(list.at);
        return status;
    }
    if (active.head.last_size > file_size)
        out->file_size = active.head.last_size;
    return vhdx_overlay_build(list.at, list.count, &out->overlay, err);
}
