#include "resume_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imgtk/bytes.h"

/* Header: magic (8), identity (8). Record: kind (8), offset (8), length (8), check (8). Little endian. */
#define MAGIC "imgtkrs1"
#define HEADER_SIZE 16u
#define RECORD_SIZE 32u
#define MAX_RECORDS (1u << 24) /* 512 MiB of journal: a disk of 16 TiB in the smallest items */

struct journal {
    int fd;
    char *path;
    uint64_t identity;
    uint8_t *records; /* those that were found when it was opened */
    size_t found, next;
    uint8_t *pending; /* appended, not written yet */
    size_t pending_size, pending_room;
};

uint64_t journal_hash(uint64_t hash, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

uint64_t journal_hash_number(uint64_t hash, uint64_t number)
{
    uint8_t bytes[8];
    imgtk_put_le64(bytes, number);
    return journal_hash(hash, bytes, sizeof(bytes));
}

/* ---- Opening ------------------------------------------------------------ */

/* The check holds the identity, so a record of another job is not taken for one of this. */
static uint64_t record_check(const struct journal *journal, const uint8_t *record)
{
    return journal_hash(journal_hash_number(JOURNAL_HASH_START, journal->identity), record, RECORD_SIZE - 8);
}

static int write_all(int fd, const uint8_t *bytes, size_t length, off_t offset, struct imgtk_error *err)
{
    while (length > 0) {
        ssize_t count = pwrite(fd, bytes, length, offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return imgtk_fail_errno(err, count < 0 ? errno : ENOSPC, "cannot write the journal of the conversion");
        bytes += count;
        length -= (size_t)count;
        offset += count;
    }
    return 0;
}

static int begin(struct journal *journal, struct imgtk_error *err)
{
    uint8_t header[HEADER_SIZE];
    memcpy(header, MAGIC, 8);
    imgtk_put_le64(header + 8, journal->identity);
    if (ftruncate(journal->fd, 0) != 0)
        return imgtk_fail_errno(err, errno, "cannot begin the journal of the conversion");
    return write_all(journal->fd, header, sizeof(header), 0, err);
}

static bool is_whole(const struct journal *journal, size_t index)
{
    const uint8_t *record = journal->records + index * RECORD_SIZE;
    return imgtk_le64(record + 24) == record_check(journal, record);
}

/* Only what ends with the end of an item counts; the rest is written again. */
static void find_end(struct journal *journal, size_t count)
{
    journal->found = 0;
    for (size_t i = 0; i < count && is_whole(journal, i); i++)
        if (imgtk_le64(journal->records + i * RECORD_SIZE) == JOURNAL_ITEM)
            journal->found = i + 1;
}

static int load(struct journal *journal, bool *fresh, struct imgtk_error *err)
{
    uint8_t header[HEADER_SIZE];
    struct stat st;
    if (fstat(journal->fd, &st) != 0)
        return imgtk_fail_errno(err, errno, "cannot examine the journal of the conversion");
    *fresh = pread(journal->fd, header, sizeof(header), 0) != (ssize_t)sizeof(header);
    if (*fresh)
        return begin(journal, err);
    if (memcmp(header, MAGIC, 8) != 0)
        return imgtk_fail(err, IMGTK_EREFUSED, "'%s' is not a journal of imgtk; it stays as it is", journal->path);
    if (imgtk_le64(header + 8) != journal->identity)
        return imgtk_fail(err, IMGTK_ECHANGED,
                          "the source or the options have changed since this conversion began: remove '%s' to begin anew",
                          journal->path);
    uint64_t count = ((uint64_t)st.st_size - HEADER_SIZE) / RECORD_SIZE;
    if (count > MAX_RECORDS)
        return imgtk_fail(err, IMGTK_ELIMIT, "'%s' has more than %u records", journal->path, MAX_RECORDS);
    journal->records = malloc(count ? count * RECORD_SIZE : 1);
    if (!journal->records)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    ssize_t got = pread(journal->fd, journal->records, count * RECORD_SIZE, HEADER_SIZE);
    if (got < 0)
        return imgtk_fail_errno(err, errno, "cannot read the journal of the conversion");
    find_end(journal, (size_t)got / RECORD_SIZE);
    return 0;
}

int journal_open(const char *path, uint64_t identity, struct journal **out, bool *fresh, struct imgtk_error *err)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    if (!journal)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    journal->identity = identity;
    journal->path = strdup(path);
    journal->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    int status = 0;
    if (!journal->path)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    else if (journal->fd < 0)
        status = imgtk_fail_errno(err, errno, "Could not open '%s'", path);
    else if (flock(journal->fd, LOCK_EX | LOCK_NB) != 0)
        status = imgtk_fail(err, IMGTK_EREFUSED, "'%s' is in use: another imgtk works on this conversion", path);
    else
        status = load(journal, fresh, err);
    if (status) {
        journal_close(journal);
        return status;
    }
    *out = journal;
    return 0;
}

int journal_begin_anew(struct journal *journal, struct imgtk_error *err)
{
    int status = begin(journal, err);
    if (!status && fdatasync(journal->fd) != 0)
        status = imgtk_fail_errno(err, errno, "cannot begin the journal of the conversion");
    free(journal->records);
    journal->records = NULL;
    journal->found = journal->next = 0;
    return status;
}

/* ---- Reading and writing ------------------------------------------------ */

int journal_next(struct journal *journal, struct journal_record *out, bool *found, struct imgtk_error *err)
{
    *found = journal->next < journal->found;
    if (!*found) {
        if (journal->records && ftruncate(journal->fd, (off_t)(HEADER_SIZE + journal->found * RECORD_SIZE)) != 0)
            return imgtk_fail_errno(err, errno, "cannot shorten the journal of the conversion");
        free(journal->records);
        journal->records = NULL;
        return 0;
    }
    const uint8_t *record = journal->records + journal->next++ * RECORD_SIZE;
    out->kind = (enum journal_kind)imgtk_le64(record);
    out->offset = imgtk_le64(record + 8);
    out->length = imgtk_le64(record + 16);
    return 0;
}

int journal_append(struct journal *journal, const struct journal_record *record, struct imgtk_error *err)
{
    if (journal->pending_size + RECORD_SIZE > journal->pending_room) {
        size_t room = journal->pending_room ? 2 * journal->pending_room : 64 * RECORD_SIZE;
        uint8_t *grown = realloc(journal->pending, room);
        if (!grown)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
        journal->pending = grown;
        journal->pending_room = room;
    }
    uint8_t *at = journal->pending + journal->pending_size;
    imgtk_put_le64(at, (uint64_t)record->kind);
    imgtk_put_le64(at + 8, record->offset);
    imgtk_put_le64(at + 16, record->length);
    imgtk_put_le64(at + 24, record_check(journal, at));
    journal->pending_size += RECORD_SIZE;
    return 0;
}

int journal_write(struct journal *journal, struct imgtk_error *err)
{
    int status = write_all(journal->fd, journal->pending, journal->pending_size,
                           (off_t)(HEADER_SIZE + journal->found * RECORD_SIZE), err);
    if (!status && fdatasync(journal->fd) != 0)
        status = imgtk_fail_errno(err, errno, "cannot write the journal of the conversion");
    if (!status) {
        journal->found += journal->pending_size / RECORD_SIZE;
        journal->next = journal->found;
        journal->pending_size = 0;
    }
    return status;
}

bool journal_is_empty(const struct journal *journal)
{
    return journal->found == 0;
}

int journal_remove(struct journal *journal, struct imgtk_error *err)
{
    if (unlink(journal->path) != 0 && errno != ENOENT)
        return imgtk_fail_errno(err, errno, "cannot remove '%s'", journal->path);
    return 0;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->path);
    free(journal->records);
    free(journal->pending);
    free(journal);
}
