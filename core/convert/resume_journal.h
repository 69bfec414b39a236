/* The journal's file: a header that names the job, and records. Internal to core; see resume.h. */
#ifndef IMGTK_CORE_CONVERT_RESUME_JOURNAL_H
#define IMGTK_CORE_CONVERT_RESUME_JOURNAL_H

#include "imgtk/image.h"

enum journal_kind {
    JOURNAL_DATA = 1, /* a run of the current item that holds data */
    JOURNAL_ZERO = 2, /* a run that was said to be zero */
    JOURNAL_ITEM = 3  /* the item ends at offset + length: what stands before belongs to it */
};

struct journal_record {
    enum journal_kind kind;
    uint64_t offset, length; /* bytes of the disk */
};

/* FNV-1a, 64 bits: tells one source from another, not an attacker from a friend. */
#define JOURNAL_HASH_START 0xcbf29ce484222325u
uint64_t journal_hash(uint64_t hash, const void *bytes, size_t length);
uint64_t journal_hash_number(uint64_t hash, uint64_t number);

struct journal;

/* identity: of the job; a file with another one is IMGTK_ECHANGED. *fresh: there was none, or nothing in it. */
int journal_open(const char *path, uint64_t identity, struct journal **out, bool *fresh, struct imgtk_error *err);
/* Forgets all records: they tell of a file that is not there. On disk when it returns. */
int journal_begin_anew(struct journal *journal, struct imgtk_error *err);
/* The next record of an item that is recorded to its end; *found false behind the last. Cuts off what is not whole. */
int journal_next(struct journal *journal, struct journal_record *out, bool *found, struct imgtk_error *err);
/* Appends records in memory; journal_write() brings them to the disk. */
int journal_append(struct journal *journal, const struct journal_record *record, struct imgtk_error *err);
int journal_write(struct journal *journal, struct imgtk_error *err);
bool journal_is_empty(const struct journal *journal);
int journal_remove(struct journal *journal, struct imgtk_error *err);
void journal_close(struct journal *journal);

#endif
