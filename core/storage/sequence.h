/* Order for sequential storages. Internal to storage.c. */
#ifndef IMGTK_CORE_STORAGE_SEQUENCE_H
#define IMGTK_CORE_STORAGE_SEQUENCE_H

#include "storage/storage.h"

/* As much of the beginning as may be read again. */
enum { SEQUENCE_HEAD = 64 << 10 };

struct sequence;
struct sequence *sequence_new(void); /* NULL: out of memory */
void sequence_free(struct sequence *sequence);

/* As the calls in imgtk/storage.h, for a storage with a sequence. */
int sequence_read(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset, size_t *done,
                  struct imgtk_error *err);
int sequence_write(struct imgtk_storage *storage, const void *buf, size_t length, uint64_t offset,
                   struct imgtk_error *err);
int sequence_zero(struct imgtk_storage *storage, uint64_t offset, uint64_t length, struct imgtk_error *err);

#endif
