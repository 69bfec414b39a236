/*
 * What the files of the qcow2 module share. Reading: an open image is a
 * struct qcow2. Writing: a writer is a handle of its own (write.c).
 */
#ifndef IMGTK_QCOW2_H
#define IMGTK_QCOW2_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "geometry.h"
#include "imgtk/cache.h"
#include "imgtk/driver.h"
#include "layout.h"

/* ---- The header (header.c) ------------------------------------------------ */

/* In host order. Fields that version 2 lacks have the values that it implies. */
struct qcow2_header {
    uint32_t version;
    uint64_t backing_offset;            /* 0: no backing file */
    uint32_t backing_length;
    uint32_t cluster_bits;
    uint64_t size;                      /* virtual, bytes */
    uint32_t crypt_method;
    uint32_t l1_size;                   /* entries */
    uint64_t l1_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_length;             /* header extensions begin here */
    uint8_t compression_type;
};

/*
 * Parses the header and validates what is needed to find the header extensions. `length`: bytes at `bytes`, which
 * should be QCOW2_FULL_HEADER_LENGTH or more unless the file is shorter.
 */
int qcow2_header_parse(const uint8_t *bytes, size_t length, struct qcow2_header *out, struct imgtk_error *err);
/*
 * Validates the rest of what can be judged from the header alone. Not in qcow2_header_parse(), since the unknown
 * incompatible bits, whose names the extensions hold, are the better reason to refuse an image.
 */
int qcow2_header_validate(const struct qcow2_header *header, struct imgtk_error *err);
/* Whether the tables that the header names lie within a file of that size. */
int qcow2_header_check_file(const struct qcow2_header *header, uint64_t file_size, struct imgtk_error *err);
struct qcow2_geometry qcow2_header_geometry(const struct qcow2_header *header);

/* ---- Header extensions (extensions.c) -------------------------------------- */

struct qcow2_bitmaps {
    uint32_t count;                     /* 0: none */
    uint64_t directory_size, directory_offset;
};

struct qcow2_extensions {
    char backing_format[QCOW2_MAX_NAME + 1]; /* "": not recorded */
    char data_file[QCOW2_MAX_NAME + 1];      /* "": not recorded */
    struct qcow2_bitmaps bitmaps;
    bool crypto;                        /* a full disk encryption header is named */
};

/* Reads the extensions; fails on unknown incompatible bits, by name where the feature table has one. */
int qcow2_extensions_read(struct imgtk_storage *file, const struct qcow2_header *header, uint64_t file_size,
                          struct qcow2_extensions *out, struct imgtk_error *err);

/* ---- An open image --------------------------------------------------------- */

enum { QCOW2_PREALLOCATION_UNKNOWN, QCOW2_PREALLOCATION_NO, QCOW2_PREALLOCATION_YES };

#define QCOW2_NO_SIZE ((uint64_t)INT64_MAX)

struct qcow2_edit;

struct qcow2 {
    struct imgtk_storage *file;
    struct imgtk_storage *data_file;    /* == file without an external one; NULL when it was not opened */
    uint64_t file_size, data_size;      /* of the two, bytes, at open; QCOW2_NO_SIZE: a pipe, not known before its end */
    struct qcow2_header header;
    struct qcow2_geometry geometry;
    struct qcow2_extensions extensions;
    char backing_name[QCOW2_MAX_NAME + 1]; /* "": none */
    uint64_t size;                      /* virtual: of the active state or of the snapshot that was opened */
    uint64_t *l1;                       /* host order, of the same; l1_entries of them cover the size */
    uint64_t l1_entries;
    uint64_t l1_offset, l1_bytes;       /* where it lies */
    struct imgtk_cache *l2_slices;      /* keyed by host offset, slice_bytes each */
    size_t slice_bytes;
    struct qcow2_scratch_pool *scratch; /* of read(); see scratch.h */
    _Atomic int preallocation;          /* QCOW2_PREALLOCATION_*, judged at the first extent() */
    struct qcow2_edit *edit;            /* NULL until it is edited; see edit.h */
    bool writable, is_snapshot, for_check; /* how it was opened */
};

/* Reads header and tables anew, after they have changed. Nobody else may use the image. */
int qcow2_reload(struct qcow2 *image, struct imgtk_error *err);

/* ---- Mapping (map.c) --------------------------------------------------------- */

enum qcow2_kind {
    QCOW2_KIND_DATA,
    QCOW2_KIND_COMPRESSED,
    QCOW2_KIND_ZERO,
    QCOW2_KIND_ZERO_ALLOCATED,       /* zeroes, with space reserved */
    QCOW2_KIND_UNALLOCATED,
    QCOW2_KIND_UNALLOCATED_ALLOCATED /* a subcluster that says nothing in a cluster that has space */
};

/* A run of guest bytes of one kind; where the kind has space, at consecutive host offsets. */
struct qcow2_run {
    uint64_t length;
    enum qcow2_kind kind;
    uint64_t host_offset;
};

/* A piece of an L2 table, held in the cache. */
struct qcow2_slice {
    const uint8_t *entries; /* NULL: the L1 entry is unallocated */
    uint64_t start, end;    /* guest bytes that it covers; end is at most the image's size */
};

/* The slice that covers a guest offset below the size. Where there is none, `end` passes over all unallocated L1
   entries before `limit`. */
int qcow2_slice_get(struct qcow2 *image, uint64_t offset, uint64_t limit, struct qcow2_slice *out,
                    struct imgtk_error *err);
void qcow2_slice_put(struct qcow2 *image, struct qcow2_slice *slice);
/* The run at offset, which lies in the slice; ends at or soon after `limit`, and within the slice. */
int qcow2_slice_run(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset, uint64_t limit,
                    struct qcow2_run *out, struct imgtk_error *err);
/* The first word of the L2 entry of offset. */
uint64_t qcow2_slice_entry(const struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset);
int qcow2_cache_open(struct qcow2 *image, struct imgtk_error *err);

/* ---- Snapshots (snapshot.c) and bitmaps (bitmap.c) ----------------------------- */

struct qcow2_snapshot {
    uint64_t offset, length;    /* of its entry in the table, bytes; without the padding */
    uint64_t l1_offset;
    uint32_t l1_size;           /* entries */
    uint32_t extra_length;      /* bytes */
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size;     /* bytes */
    uint64_t disk_size;         /* virtual, bytes */
    uint64_t icount;
    bool has_icount;
    const char *id, *name;      /* valid during the visit */
};
/* Not 0 ends the walk with that value. */
typedef int (*qcow2_snapshot_fn)(void *context, const struct qcow2_snapshot *snapshot, struct imgtk_error *err);
/* Visits all snapshots in order. *end_offset (may be NULL): where the table ends. */
int qcow2_snapshots_walk(struct qcow2 *image, qcow2_snapshot_fn visit, void *context, uint64_t *end_offset,
                         struct imgtk_error *err);
/* Whether the L1 table lies within the file and is large enough. */
int qcow2_snapshot_validate(const struct qcow2 *image, const struct qcow2_snapshot *snapshot, struct imgtk_error *err);
/* By id, else by name. IMGTK_ENOTFOUND: there is none. id and name of *out are NULL. */
int qcow2_snapshot_find(struct qcow2 *image, const char *wanted, struct qcow2_snapshot *out, struct imgtk_error *err);

struct qcow2_bitmap {
    uint64_t offset;            /* of its entry in the directory */
    uint64_t table_offset;
    uint32_t table_size;        /* entries */
    uint32_t flags;             /* QCOW2_BITMAP_* */
    unsigned granularity_bits;
    bool known;                 /* of a kind that this program can keep up to date */
    const char *name;           /* valid during the visit */
};
/* Of a bitmap's table, for a disk of that size; one that is empty has a table too. */
uint64_t qcow2_bitmap_entries(const struct qcow2_geometry *geometry, unsigned granularity_bits, uint64_t size);
typedef int (*qcow2_bitmap_fn)(void *context, const struct qcow2_bitmap *bitmap, struct imgtk_error *err);
int qcow2_bitmaps_walk(struct qcow2 *image, qcow2_bitmap_fn visit, void *context, struct imgtk_error *err);

/* Whether far more clusters are in use than the file occupies (preallocation.c); a fault in the refcounts means no. */
bool qcow2_is_preallocated(struct qcow2 *image);

/* ---- Driver ops ------------------------------------------------------------ */

int qcow2_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);     /* read.c */
int qcow2_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                 struct imgtk_error *err);                                                            /* map.c */
int qcow2_in_order(void *handle, bool *out, struct imgtk_error *err);                                 /* order.c */
int qcow2_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);                  /* info.c */
int qcow2_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);                    /* check.c */

extern const struct imgtk_opt qcow2_create_opts[];                                                    /* options.c */
int qcow2_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);                  /* create.c */
int qcow2_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);              /* write.c */
int qcow2_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int qcow2_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
                struct imgtk_error *err);
int qcow2_prepare(void *writer, const struct imgtk_write *write, void **prepared, struct imgtk_error *err); /* compress.c */
int qcow2_write_prepared(void *writer, const struct imgtk_write *write, void *prepared, struct imgtk_error *err);
void qcow2_discard(void *writer, void *prepared);
int qcow2_finish(void *writer, struct imgtk_error *err);                                              /* finish.c */
void qcow2_writer_close(void *writer);
int qcow2_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);     /* measure.c */

int qcow2_edit_begin(void *handle, struct imgtk_edit *args, struct imgtk_error *err);                 /* edit.c */
int qcow2_edit_commit(void *handle, struct imgtk_error *err);
int qcow2_edit_write(void *handle, const void *buf, size_t length, uint64_t offset,
                     struct imgtk_error *err);                                                        /* edit_data.c */
int qcow2_edit_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err);
int qcow2_edit_empty(void *handle, struct imgtk_error *err);
int qcow2_edit_resize(void *handle, uint64_t size, struct imgtk_error *err);                          /* edit_size.c */
int qcow2_edit_allocate_behind(void *handle, uint64_t offset, enum imgtk_allocation how,
                               struct imgtk_error *err);                                              /* edit_allocate.c */
int qcow2_edit_backing(void *handle, const char *name, const char *format, struct imgtk_error *err);  /* edit_header.c */
int qcow2_edit_snapshot(void *handle, const struct imgtk_snapshot_change *change,
                        struct imgtk_error *err);                                                     /* edit_snapshot.c */

#endif
