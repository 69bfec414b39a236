/* Order for sequential storages. Internal to storage.c. */
#ifndef IMGTK_CORE_STORAGE_SEQUENCE_H
#define IMGTK_CORE_STORAGE_SEQUENCE_H

#include "storage/storage.h"

enum {
    SEQUENCE_HEAD = 64 << 10,     /* as much of the beginning as may be read again anyway */
    SEQUENCE_RECENT = 4 << 20     /* as much before the position as may be read again after sequence_freeze() */
};

struct sequence;
struct sequence *sequence_new(void); /* NULL: out of memory */
void sequence_free(struct sequence *sequence);

/*
 * For a reader that looks around before it reads in order. After keep, the
 * first `limit` bytes stay readable, and reading beyond them is
 * IMGTK_EUNSUPPORTED with nothing lost. Both others end that: what was kept
 * stays and the storage goes on behind it, with freeze such that
 * SEQUENCE_RECENT bytes can be read again.
 */
void sequence_keep(struct imgtk_storage *storage, size_t limit);
void sequence_go_on(struct imgtk_storage *storage);
int sequence_freeze(struct imgtk_storage *storage, struct imgtk_error *err);

/* As the calls in imgtk/storage.h, for a storage with a sequence. */
int sequence_read(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset, size_t *done,
                  struct imgtk_error *err);
int sequence_write(struct imgtk_storage *storage, const void *buf, size_t length, uint64_t offset,
                   struct imgtk_error *err);
int sequence_zero(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_error *err);

#endif
