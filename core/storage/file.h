/* What the sources of the file storage share. */
#ifndef IMGTK_CORE_STORAGE_FILE_H
#define IMGTK_CORE_STORAGE_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "storage/storage.h"

struct file_new; /* a file that has no name yet; see file_create.c */

struct file_run {
    uint64_t start, end; /* empty: start == end */
    enum imgtk_range_kind kind;
};

enum { FILE_RUNS = 8 }; /* one per worker that walks a part of its own */

struct file_range {
    uint64_t offset, length;
};

/* What was read or written last and is not dropped from the page cache yet; see file_behind.c. */
enum { FILE_BEHIND = 64 };
struct file_behind {
    atomic_int_least64_t left; /* bytes that may still be moved before pages are dropped */
    bool always;               /* asked for: from the first byte on, and all of it in the end */
    struct file_range ranges[FILE_BEHIND]; /* a ring, under the file's lock */
    unsigned next;
};

/* Space for a file that is appended to; see file_append.c. */
struct file_append {
    bool expected;  /* this file system takes it block by block otherwise; what follows exists only then */
    pthread_rwlock_t lock; /* held for reading by who writes to the file, for writing by who takes space or gives it back */
    atomic_uint_least64_t taken; /* how far; before it begins, from where on it is worth it */
};

struct file {
    int fd;
    bool writable;
    bool device;              /* a block device */
    bool was_empty;           /* when it was opened: what nobody wrote reads as zeroes */
    uint64_t device_size;
    struct file_new *new_file; /* NULL: it exists already */
    atomic_bool no_extents, no_punch, no_zero_range, no_zero_out; /* what the file system or the device has refused */
    pthread_mutex_t lock;     /* of what follows; a leaf */
    struct file_run runs[FILE_RUNS]; /* of a file that is open for reading: one lseek pair per run, not per question */
    unsigned next_run;
    struct file_behind behind;
    struct file_append append;
};

extern const struct imgtk_storage_ops file_ops;

/* Takes fd and new_file (may be NULL): both are released on failure. */
int file_wrap(int fd, const char *name, uint32_t flags, struct file_new *new_file, struct imgtk_storage **out,
              struct imgtk_error *err);

int file_size(void *handle, uint64_t *out, struct imgtk_error *err);
int file_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int file_flush(void *handle, struct imgtk_error *err);

/* file_zero.c */
int file_zero(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err);
int file_allocate(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err);

/* file_append.c */
void file_will_append(void *handle);
/* Around every call that may make the file longer, which giving back space would undo. */
void file_append_enter(struct file *file);
void file_append_leave(struct file *file);
/* Takes the space that a write needs, before it is entered. */
void file_append_before(struct file *file, uint64_t offset, uint64_t length);
/* Told why a write failed, after it was left; true: space was given back since, so that it is worth another try. */
bool file_append_make_room(struct file *file, int os_errno);
int file_append_end(struct file *file, struct imgtk_error *err);
void file_append_destroy(struct file *file);

/* file_behind.c: told of what was moved, it writes out and drops what is due. */
void file_behind_init(struct file_behind *behind);
void file_drop_cache(void *handle);
void file_has_read(struct file *file, uint64_t offset, uint64_t length);
int file_has_written(struct file *file, uint64_t offset, uint64_t length, struct imgtk_error *err);
void file_behind_end(struct file *file); /* before it is closed */

/* file_create.c */
int file_commit(void *handle, bool sync, struct imgtk_error *err);
void file_new_free(struct file_new *new_file); /* removes what was not committed; NULL is allowed */

#endif
