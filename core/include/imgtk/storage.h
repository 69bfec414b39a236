/*
 * Storage gives bytes: a file, a block device, a pipe, memory, an NBD export,
 * an HTTP resource. Format drivers only ever reach bytes through these calls.
 *
 * Offsets and lengths are bytes. All calls on one storage may run concurrently
 * from several threads, except imgtk_storage_close(), _commit() and _abandon().
 */
#ifndef IMGTK_STORAGE_H
#define IMGTK_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cancel.h"
#include "error.h"
#include "opts.h"

#ifdef __cplusplus
extern "C" {
#endif

struct imgtk_storage; /* one open resource */

/* What a storage can do, as imgtk_storage_flags() tells. */
enum {
    IMGTK_STORAGE_WRITABLE = 1u << 0,
    /* A pipe: read or written once, in order, its size mostly not known. Its first 64 KiB may be read again (all that a
       driver's open() and in_order() read, while they do), reading further on skips, and what a writer leaves out
       (truncate() included) is written as zeroes. */
    IMGTK_STORAGE_SEQUENTIAL = 1u << 1,
    IMGTK_STORAGE_READS_ZERO = 1u << 2,   /* bytes not written since it was opened read as zero (a new file) */
    IMGTK_STORAGE_FIXED_SIZE = 1u << 3,   /* a device or export: cannot grow or shrink */
    IMGTK_STORAGE_HAS_EXTENTS = 1u << 4,  /* extent() tells holes */
    IMGTK_STORAGE_REMOTE = 1u << 5,       /* every request is a round trip: more workers than CPUs help */
    /* Writers exclude each other in the kernel, which spins: core lets in two of them, so that one waits (regular files). */
    IMGTK_STORAGE_ONE_WRITER = 1u << 6,
    IMGTK_STORAGE_TELLS_DEPTH = 1u << 7   /* depth() tells more than that all is the storage's own */
};

enum imgtk_range_kind { IMGTK_RANGE_DATA, IMGTK_RANGE_ZERO };

/* A run of bytes of one kind; ZERO means known to read as zeroes. */
struct imgtk_range {
    uint64_t length;
    enum imgtk_range_kind kind;
};

/* A run of bytes that one file of the chain behind the storage holds. */
struct imgtk_depth {
    uint64_t length;
    uint32_t depth; /* 1: the file that is served, 2: its backing file, ...; 0: none */
};

enum {
    IMGTK_ZERO_ALLOCATE = 1u << 0 /* the range must occupy space afterwards (no hole) */
};

/*
 * The ops of one kind of storage. A loadable module exports
 * imgtk_storage_v1(), returning such a table; see driver.h for the rules of
 * struct_size and of optional ops, which are the same. A sequential storage's
 * pread and pwrite are called with consecutive offsets only.
 */
struct imgtk_storage_ops {
    size_t struct_size;
    const char *name;                  /* "nbd" */
    const char *description;
    const char *version;
    const char *const *schemes;        /* "nbd://", "nbd+unix://", ...; NULL-terminated */
    const struct imgtk_opt *opts;      /* connections, timeout, ...; may be NULL */

    /* Required, open unless there is open_cancellable. `name` as the user gave it; flags: IMGTK_STORAGE_WRITABLE, and
       IMGTK_STORAGE_TELLS_DEPTH when depth() will be called, without which the storage need not be able to. */
    int (*open)(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle, struct imgtk_error *err);
    void (*close)(void *handle);
    int (*size)(void *handle, uint64_t *out, struct imgtk_error *err);
    /* Reads up to length bytes and sets *done; *done < length only at the end of the storage. */
    int (*pread)(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err);

    /* Optional; the default is named. */
    uint32_t (*flags)(void *handle);                                       /* 0 */
    int (*pwrite)(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err); /* refused */
    int (*zero)(void *handle, uint64_t offset, uint64_t length, uint32_t flags, struct imgtk_error *err); /* writes zeroes */
    int (*extent)(void *handle, uint64_t offset, uint64_t length, struct imgtk_range *out,
                  struct imgtk_error *err);                  /* all data, as past the end; may answer beyond length */
    int (*truncate)(void *handle, uint64_t size, struct imgtk_error *err); /* refused */
    int (*flush)(void *handle, struct imgtk_error *err);                   /* nothing to do */
    int (*fd)(void *handle);                                               /* -1: the kernel cannot copy from or to it */
    int (*commit)(void *handle, bool sync, struct imgtk_error *err);       /* flush when sync */
    void (*abandon)(void *handle); /* before close without commit of what was writable; nothing to undo */
    int (*allocate)(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err); /* IMGTK_EUNSUPPORTED */
    int (*allocated)(void *handle, uint64_t *out, struct imgtk_error *err);                   /* the size */
    void (*drop_cache)(void *handle);                                      /* nothing to drop */
    /* A text that is another one when the content has changed (an ETag); lives as long as the handle. NULL: not known. */
    const char *(*version_of)(void *handle);                               /* not known */
    /* How much of a SEQUENTIAL storage may be put into a temporary file, where it cannot be read as it comes. */
    uint64_t (*spool_limit)(void *handle);                                 /* no limit */
    int (*depth)(void *handle, uint64_t offset, uint64_t length, struct imgtk_depth *out,
                 struct imgtk_error *err);                                 /* 1 everywhere; may answer beyond length */
    void (*write_through)(void *handle);                                   /* as imgtk_storage_write_through() says */
    /* --- end of storage ABI 1.0 --- */
    /* As open, and called instead of it, for a storage that waits for others: once `cancel`, which may be
       NULL and outlives the handle, asks for it, this call and all on the handle end within seconds with
       IMGTK_ECANCELLED instead of waiting. A server that answers may still be asked. */
    int (*open_cancellable)(const char *name, uint32_t flags, const struct imgtk_opts *opts,
                            const struct imgtk_cancel *cancel, void **handle, struct imgtk_error *err);
    void (*will_append)(void *handle);                                     /* nothing to gain by knowing */
    /* --- end of storage ABI 1.1 --- */
};

/* The symbol that a module exports. */
#define IMGTK_STORAGE_SYMBOL "imgtk_storage_v1"
IMGTK_API const struct imgtk_storage_ops *imgtk_storage_v1(void);

/* The name a user would recognise, without credentials. Lives as long as the storage. */
IMGTK_API const char *imgtk_storage_name(const struct imgtk_storage *storage);
IMGTK_API uint32_t imgtk_storage_flags(const struct imgtk_storage *storage);

/* Size in bytes as of now; IMGTK_EUNSUPPORTED for a sequential storage that does not know it. */
IMGTK_API int imgtk_storage_size(struct imgtk_storage *storage, uint64_t *out, struct imgtk_error *err);

/* The space that the storage occupies, in bytes (a file's blocks); where that is not known, its size. */
IMGTK_API int imgtk_storage_allocated(struct imgtk_storage *storage, uint64_t *out, struct imgtk_error *err);

/* Reads exactly length bytes. Fewer is IMGTK_ECORRUPT ("... ends at byte N"). */
IMGTK_API int imgtk_storage_pread(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset,
                                  struct imgtk_error *err);
/* Reads what there is, up to length; past the end *done is 0. */
IMGTK_API int imgtk_storage_pread_some(struct imgtk_storage *storage, void *buf, size_t length, uint64_t offset,
                                       size_t *done, struct imgtk_error *err);
IMGTK_API int imgtk_storage_pwrite(struct imgtk_storage *storage, const void *buf, size_t length, uint64_t offset,
                                   struct imgtk_error *err);
/* Makes the range read as zeroes by the cheapest way that is known to; flags: IMGTK_ZERO_*. Grows a file as needed. */
IMGTK_API int imgtk_storage_zero(struct imgtk_storage *storage, uint64_t offset, uint64_t length, uint32_t flags,
                                 struct imgtk_error *err);
/* The run that begins at offset, clipped to length. Past the end of the storage nothing is known: all counts as data. */
IMGTK_API int imgtk_storage_extent(struct imgtk_storage *storage, uint64_t offset, uint64_t length,
                                   struct imgtk_range *out, struct imgtk_error *err);
/* How deep the run is held that begins at offset (which must be below the size), clipped to length. */
IMGTK_API int imgtk_storage_depth(struct imgtk_storage *storage, uint64_t offset, uint64_t length,
                                  struct imgtk_depth *out, struct imgtk_error *err);
IMGTK_API int imgtk_storage_truncate(struct imgtk_storage *storage, uint64_t size, struct imgtk_error *err);
/*
 * What is read and written from now on shall not stay in the page cache, and what is there already and needs no writing
 * goes. Without it, a file storage begins to drop pages once it has moved a quarter of the machine's memory. Called
 * before the storage is shared between threads.
 */
IMGTK_API void imgtk_storage_drop_cache(struct imgtk_storage *storage);
/*
 * From now on what pwrite() and zero() have done is safe on disk when they return, where the storage has a way of its own
 * for that; elsewhere flush() remains what makes it safe. Called before the storage is shared between threads.
 */
IMGTK_API void imgtk_storage_write_through(struct imgtk_storage *storage);
/*
 * From now on the storage will be written from front to back and without lasting gaps, so that space may be taken in
 * large steps ahead of the writes; what was not needed is given back when it is committed, or when a write finds no
 * room otherwise. Called before the storage is shared between threads.
 */
IMGTK_API void imgtk_storage_will_append(struct imgtk_storage *storage);
IMGTK_API int imgtk_storage_flush(struct imgtk_storage *storage, struct imgtk_error *err);

/*
 * An unnamed temporary file in TMPDIR (else /var/tmp), for what must be
 * gathered before it can be passed on in order: gone when it is closed.
 */
IMGTK_API const char *imgtk_spool_folder(void);
IMGTK_API int imgtk_storage_spool(struct imgtk_storage **out, struct imgtk_error *err);

/*
 * Reserves space for the range without changing what it reads as, and grows a
 * file to hold it. IMGTK_EUNSUPPORTED: the storage cannot reserve.
 */
IMGTK_API int imgtk_storage_allocate(struct imgtk_storage *storage, uint64_t offset, uint64_t length,
                                     struct imgtk_error *err);

/*
 * From now on conversions may write local files out of mappings of other local files, which copies the bytes once instead
 * of twice. Where a mapped file becomes shorter meanwhile, a thread gets a SIGBUS: this installs a handler for it, so that
 * the conversion fails with a message instead. False, and nothing is mapped: the process handles SIGBUS already, or ignores
 * it. Nor is it where somebody installs another handler later, or in a conversion that begins while SIGBUS is blocked.
 * Called before threads are started; the library must not be unloaded any more.
 */
IMGTK_API bool imgtk_allow_mapping(void);

/*
 * Copies without moving the bytes: shares blocks where the file system can, or
 * lets the server of a network file system copy. Sets *done to the bytes copied
 * from the beginning of the range, which may be fewer than length; 0 means that
 * there is no such way for this range and the caller reads and writes instead,
 * looking for zeroes meanwhile. Source holes are the caller's business: ask
 * imgtk_storage_extent() first. Where the source ends early, so does the copy.
 */
IMGTK_API int imgtk_storage_copy(struct imgtk_storage *from, uint64_t from_offset, struct imgtk_storage *to,
                                 uint64_t to_offset, uint64_t length, uint64_t *done, struct imgtk_error *err);

#ifdef __cplusplus
}
#endif
#endif
