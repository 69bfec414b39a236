/*
 * What the files of the qcow2 module share. Reading: an open image is a
 * struct qcow2. Writing: a writer is a handle of its own (write.c).
 */
#ifndef IMGTK_QCOW2_H
#define IMGTK_QCOW2_H

#include <pthread.h>
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

struct qcow2 {
    struct imgtk_storage *file;
    struct imgtk_storage *data_file;    /* == file without an external one; NULL when it was not opened */
    uint64_t file_size, data_size;      /* of the two, bytes, at open */
    struct imgtk_references *refs;
    uint32_t open_flags;                /* IMGTK_OPEN_* */
    struct qcow2_header header;
    struct qcow2_geometry geometry;
    struct qcow2_extensions extensions;
    char backing_name[QCOW2_MAX_NAME + 1]; /* "": none */
    uint64_t size;                      /* virtual: of the active state or of the snapshot that was opened */
    uint64_t *l1;                       /* host order, of the same; l1_entries of them cover the size */
    uint64_t l1_entries;
    struct imgtk_cache *l2_slices;      /* keyed by host offset, slice_bytes each */
    size_t slice_bytes;
    struct imgtk_codec_pool *codecs;
    /* Whether data clusters are mostly preallocated metadata: judged at the first extent(). */
    pthread_mutex_t preallocation_lock;
    bool preallocation_known, preallocated;
};

/* ---- Driver ops ------------------------------------------------------------ */

int qcow2_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);     /* read.c */
int qcow2_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                 struct imgtk_error *err);                                                            /* map.c */
int qcow2_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);                  /* info.c */
int qcow2_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);                    /* check.c */

extern const struct imgtk_opt qcow2_create_opts[];                                                    /* options.c */
int qcow2_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);                  /* create.c */
int qcow2_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);              /* write.c */
int qcow2_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_error *err);
int qcow2_finish(void *writer, struct imgtk_error *err);                                              /* finish.c */
void qcow2_writer_close(void *writer);
int qcow2_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);     /* measure.c */

#endif
