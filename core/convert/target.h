/* The target of a conversion: its storage, its driver, its writer, and how it is put in place. Internal to core. */
#ifndef IMGTK_CORE_CONVERT_TARGET_H
#define IMGTK_CORE_CONVERT_TARGET_H

#include "imgtk/jobs.h"

struct target {
    struct imgtk_context *context;
    const struct imgtk_target *wish;
    const struct imgtk_driver *driver;
    struct imgtk_storage *file;
    struct imgtk_references *references;
    struct imgtk_opts *opts;
    void *writer;
    uint32_t unit;     /* bytes */
    bool reads_zero;   /* what is not written reads as zeroes */
    bool sequential;
    bool one_writer;   /* writes only wait for each other: those of one file, unless they are compressed before */
    bool prepares;     /* the driver does the slow part of a write apart, when it compresses: prepare() */
    bool drops_zeroes; /* write() leaves out zero units by itself, and compressing makes it worth to let it */
    bool far;          /* requests to the target, or to a source, have a long way */
    unsigned workers;
    unsigned writers;  /* how many of them may call write() at once */
    struct resume *resume; /* NULL: not asked for */
    bool shares_blocks; /* the file system can share the blocks of every source file with the target */
};

struct target_request {
    const struct imgtk_target *wish;
    uint64_t size;
    struct imgtk_plan *plan;       /* NULL: nothing will be written */
    struct imgtk_image *backing;   /* NULL: none */
    struct imgtk_image *base;      /* backing, or what only differences are taken from; NULL: none */
    struct imgtk_image *const *sources; /* the target must be none of their files */
    size_t source_count;
    unsigned workers; /* 0: as many as suit the sources and the target */
    bool write_all;
    int64_t sparse_size; /* of the job */
    bool read_back;      /* convert_verify() will follow */
};

/* Opens or creates the file and lays the image out. On failure nothing is left behind. */
int target_create(struct imgtk_context *context, const struct target_request *request, struct target *out,
                  struct imgtk_error *err);
/* The options of `text` (NULL: none) over the configuration's. Free *out with imgtk_opts_free() in any case. */
int target_options(struct imgtk_context *context, const struct imgtk_driver *driver, const char *text,
                   struct imgtk_opts **out, struct imgtk_error *err);
/* Writes what makes the image valid. */
int target_finish(struct target *target, struct imgtk_error *err);
/* Brings the finished image to the disk, unless the job forgoes that, and drops it from the page cache. */
int target_settle(struct target *target, struct imgtk_error *err);
/* Syncs and gives the finished image its name. */
int target_commit(struct target *target, struct imgtk_error *err);
/* Releases everything; what was not committed vanishes. */
void target_close(struct target *target);

#endif
