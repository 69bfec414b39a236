/* One open storage: a kind's ops, filled with defaults, and its handle. Internal to core. */
#ifndef IMGTK_CORE_STORAGE_H
#define IMGTK_CORE_STORAGE_H

#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "context/budget.h"
#include "imgtk/storage.h"

struct imgtk_context;
struct sequence;

struct imgtk_storage {
    /* Callable but for zero, commit, allocated, drop_cache and write_through, which storage.c stands in for. */
    struct imgtk_storage_ops ops;
    void *handle;
    char *name;
    uint32_t flags;
    bool committed;
    struct output_share output;
    struct metadata_meter *metadata; /* NULL: reading is not counted */
    struct sequence *sequence; /* of a sequential storage, else NULL */
    sem_t writers; /* of a ONE_WRITER storage: how many more may begin to write */
    /* The sources that blocks cannot be shared with, or that no server copies from; compared, never followed. */
    _Atomic(const struct imgtk_storage *) no_reflink_from;
    _Atomic(const struct imgtk_storage *) no_copy_from;
};

/* Copies `ops` up to its struct_size and fills optional ops with their defaults; IMGTK_EINVAL names a missing op. */
int storage_ops_complete(const struct imgtk_storage_ops *ops, struct imgtk_storage_ops *out, struct imgtk_error *err);

/* Wraps a handle that `ops` understand; takes the handle (closes it on failure). */
int storage_wrap(const struct imgtk_storage_ops *ops, void *handle, const char *name, struct imgtk_storage **out,
                 struct imgtk_error *err);

/* Whether the kernel can reach the bytes by itself, so that imgtk_storage_copy() is worth a try. */
bool storage_has_fd(const struct imgtk_storage *storage);

/* File systems share blocks of this size, or a multiple of it. */
#define STORAGE_SHARED_UNIT 4096u

/* Whether it is a file server that has the bytes, which copies ranges from and to any place by itself. */
bool storage_is_on_server(const struct imgtk_storage *storage);

/* Whether imgtk_storage_copy() may still work between the two: it was not refused yet but for single ranges. */
bool storage_may_copy(const struct imgtk_storage *from, const struct imgtk_storage *to);

/*
 * How many at a time write to a ONE_WRITER storage: one does, and the other waits for it in the kernel, awake, which is
 * sooner there than whoever has to be woken. More of them would only keep CPUs busy.
 */
#define STORAGE_WRITERS 2u

/* Around every call that writes bulk data to the storage. */
void storage_begin_write(struct imgtk_storage *storage);
void storage_end_write(struct imgtk_storage *storage);

typedef int (*storage_pwrite_fn)(void *handle, const void *buf, size_t length, uint64_t offset,
                                 struct imgtk_error *err);
/* Writes length bytes of zeroes in pieces. */
int storage_write_zeroes(storage_pwrite_fn write, void *handle, uint64_t offset, uint64_t length,
                         struct imgtk_error *err);

/*
 * An open descriptor of the user's or of ours: a file or device (file.c), else
 * a pipe (pipe.c); folders are refused. flags: IMGTK_STORAGE_WRITABLE or 0.
 * Takes the descriptor: closes it on failure.
 */
int storage_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err);

/* What a name given by the user means. */
enum storage_name_kind {
    STORAGE_NAME_PATH,
    STORAGE_NAME_STDIO, /* "-" */
    STORAGE_NAME_FD,    /* "fd:5" */
    STORAGE_NAME_NULL,  /* "null:" */
    STORAGE_NAME_MODULE /* a scheme that a storage module claims */
};

struct storage_name {
    enum storage_name_kind kind;
    const char *path;                    /* PATH: without "file:"; points into the name */
    const struct imgtk_storage_ops *ops; /* MODULE */
};

int storage_name_parse(struct imgtk_context *context, const char *name, struct storage_name *out,
                       struct imgtk_error *err);

/* Whether a name begins as "scheme:" does; "C:" and "a/b:c" do too and do not. */
bool storage_name_has_scheme(const char *name);

/* ---- The built-in kinds -------------------------------------------------- */

/* A regular file or block device. Takes fd. */
int file_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err);
/* The file at `path` made anew on commit; see imgtk_storage_create(). access_mode: O_RDWR or O_WRONLY. */
int file_create(const char *path, int access_mode, struct imgtk_storage **out, struct imgtk_error *err);
/*
 * Where the file at `path` is made: behind links at its end. *old: the regular file that is replaced there; st_mode 0
 * when there is none. What may not be replaced is refused.
 */
int file_place(const char *path, char resolved[PATH_MAX], struct stat *old, struct imgtk_error *err);
/* What to open it with: as long as it has not taken over the permissions of `old`, nobody else opens it. */
mode_t file_first_permissions(const struct stat *old);
/* Owner, as far as that is ours to give, and permissions of the file that is replaced. */
int file_take_over_mode(int fd, const struct stat *old, struct imgtk_error *err);

/* Anything that is read or written once, in order. Takes fd. */
int pipe_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err);
/* A FIFO or character device; gives up on a FIFO whose other end nobody opens. */
int pipe_open(const char *path, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err);

/* "null:" or "null:SIZE" */
int null_open(const char *name, struct imgtk_storage **out, struct imgtk_error *err);

#endif
