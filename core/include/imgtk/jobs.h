/*
 * Jobs: what imgtk does with images. Format-blind, built on extents. They
 * print nothing; progress and cancellation are callbacks given per job.
 */
#ifndef IMGTK_JOBS_H
#define IMGTK_JOBS_H

#include "image.h"

#ifdef __cplusplus
extern "C" {
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* some structures have the name of the function that takes them */
#endif
#endif

/* ---- Progress ----------------------------------------------------------- */

struct imgtk_progress {
    const char *phase;     /* "copy", "sync", "verify", ...; static */
    uint64_t done, total;  /* bytes of the virtual disk that are settled, holes included; what is verified counts again */
    uint64_t copied;       /* bytes that were data */
};

/* Called often, from any worker, one at a time. Not 0 stops the job with IMGTK_ECANCELLED. */
typedef int (*imgtk_progress_fn)(void *context, const struct imgtk_progress *progress);

/* ---- Digests ------------------------------------------------------------ */

struct imgtk_digest_value {
    uint8_t bytes[IMGTK_DIGEST_MAX];
    size_t length; /* bytes */
};

/* ---- Creating and converting -------------------------------------------- */

struct imgtk_target {
    const char *name;          /* path, "-", device, scheme */
    const char *format;        /* NULL: raw */
    const char *format_opts;   /* -o; NULL: none. Wins over the configuration's defaults */
    const char *storage_opts;
    bool existing;             /* -n: the file is there and big enough; it is written in place */
    bool is_zero;              /* --target-is-zero: an existing target reads as zeroes already */
    bool compress;             /* -c */
    bool drop_cache;           /* imgtk_storage_drop_cache() for the file */
    bool write_through;        /* imgtk_storage_write_through() for the file */
    bool no_sync;              /* give the file its name without waiting for the disk */
    /* Write NAME.imgtk-part and the journal NAME.imgtk-resume, and go on with what an interrupted conversion of the
       same source left there. For formats whose driver says IMGTK_DRIVER_RESUME, uncompressed, in one file. */
    bool resume;
};

enum { IMGTK_SPARSE_DEFAULT = -1 };

struct imgtk_convert {
    struct imgtk_image *const *sources;  /* concatenated in order; each ends where the next begins */
    size_t source_count;
    struct imgtk_target target;
    /* Runs of zeroes of at least this many bytes become holes; 0: everything is written out;
       IMGTK_SPARSE_DEFAULT: 4096, and data whose blocks can be shared are not searched. */
    int64_t sparse_size;
    unsigned workers;                    /* 0: the context's */
    bool no_extents;                     /* read all of the sources, whatever they say about holes */
    uint64_t rate_limit;                 /* bytes of data per second at most; 0: no bound */
    /* --salvage: unreadable source ranges become zeroes; called for each, from any worker, with the reason why its
       beginning could not be read. NULL: they end the job. */
    void (*salvaged)(void *context, uint64_t offset, uint64_t length, const char *reason);
    void *salvage_context;
    /* The backing file of the target (-B), opened; only what differs from it is written. NULL: none.
       Its name and format are in target.format_opts. */
    struct imgtk_image *backing;
    /* --relative-to: only what differs from this image is written, zeroes included; the rest of the target stays as it
       is (a hole, or what -n finds there), and the target records nothing of it. Not together with backing. NULL: none. */
    struct imgtk_image *relative_to;
    /* The digest of the disk that was written, as of imgtk_checksum(); NULL: not wanted. The source is read once
       nevertheless, and data that are shared rather than copied are read for it. Not together with relative_to. */
    struct imgtk_digest_value *digest;
    const char *algorithm;               /* of it, and of verify; NULL: "sha256" */
    /* Reads the target back, from the disk where the operating system allows that, before it gets its name. What reads
       as another disk is IMGTK_ECORRUPT and gets none. Not for a pipe. */
    bool verify;
    imgtk_progress_fn progress;          /* may be NULL */
    void *progress_context;
    const struct imgtk_cancel *cancel;   /* may be NULL; a job stops soon after a request */
};

IMGTK_API int imgtk_convert(struct imgtk_context *context, const struct imgtk_convert *job, struct imgtk_error *err);

/* An empty image of `size` bytes; `backing` (may be NULL) is the opened image that the options name. */
IMGTK_API int imgtk_create_image(struct imgtk_context *context, const struct imgtk_target *target, uint64_t size,
                                 struct imgtk_image *backing, struct imgtk_error *err);

/* ---- Measure ------------------------------------------------------------ */

struct imgtk_measure_job {
    struct imgtk_image *const *sources; /* as of imgtk_convert; NULL: an empty image of `size` bytes */
    size_t source_count;
    uint64_t size;
    struct imgtk_target target;         /* format, format_opts and compress count; name may be NULL */
};
/*
 * What an image takes that imgtk_convert() or imgtk_create_image() would make, what it could come to take, and, where
 * that is known before, the exact size of the file. The data are not read: all that the source calls data counts, and
 * convert leaves out what is zero among them.
 */
IMGTK_API int imgtk_measure_target(struct imgtk_context *context, const struct imgtk_measure_job *job,
                                   struct imgtk_measure *out, struct imgtk_error *err);

/* ---- Map ---------------------------------------------------------------- */

struct imgtk_map {
    struct imgtk_image *image;
    uint64_t start, length;   /* clipped to the size; length UINT64_MAX: to the end */
    /* Rows only where the disk differs from this image's: told from the chains where one is an ancestor of the other
       (without reading data), else by comparing content, in steps of 4 KiB. NULL: everything. */
    struct imgtk_image *relative_to;
    /* One row per merged extent, in order; not 0 stops with that value. */
    int (*row)(void *context, const struct imgtk_chain_extent *extent);
    void *context;
    /* Fills allocation_depth of the rows, which also end where it changes: 1 for what the top layer allocates, 2 for its
       backing file, ..., 0 for nothing. An export whose server tells its own depths counts with all its files. Not
       together with relative_to. */
    bool allocation_depth;
};
IMGTK_API int imgtk_map(const struct imgtk_map *job, struct imgtk_error *err);

/* ---- Compare ------------------------------------------------------------ */

enum imgtk_difference {
    IMGTK_SAME,                 /* every byte; the larger image has zeroes where the other one has ended */
    IMGTK_DIFFERENT_CONTENT,
    IMGTK_DIFFERENT_SIZE,       /* strict only */
    IMGTK_DIFFERENT_ALLOCATION  /* strict only: data, zeroes, compression or whether something is allocated */
};

struct imgtk_compare {
    struct imgtk_image *images[2];
    bool strict;
    unsigned workers;                  /* 0: the context's */
    imgtk_progress_fn progress;        /* may be NULL */
    void *progress_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
    enum imgtk_difference difference;  /* out: the first one */
    uint64_t offset;                   /* out: CONTENT: of the 512 bytes that differ; ALLOCATION: where it begins to */
    bool extents_failed;               /* out: the failure is about what is allocated, not about reading */
};
/* 0: they could be compared, see `difference`. Common holes and common backing files are not read. */
IMGTK_API int imgtk_compare(struct imgtk_context *context, struct imgtk_compare *job, struct imgtk_error *err);

/* ---- Checksum ----------------------------------------------------------- */

struct imgtk_checksum {
    struct imgtk_image *image;
    const char *algorithm;            /* the name of a digest module, "sha256" or "blake2b"; NULL: "sha256" */
    bool flat;                        /* the plain digest of all bytes instead of the tree of docs/checksum.md */
    unsigned workers;                 /* 0: the context's */
    imgtk_progress_fn progress;       /* may be NULL */
    void *progress_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
    struct imgtk_digest_value digest; /* out */
};
/* The digest of the disk's content, whatever its format. Holes are not read; only `flat` takes time for them. */
IMGTK_API int imgtk_checksum(struct imgtk_context *context, struct imgtk_checksum *job, struct imgtk_error *err);

#ifdef __cplusplus
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
}
#endif
#endif
