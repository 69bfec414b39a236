/* The command line of `imgtk convert`: qemu-img's options and nbdcopy's, and what they come to. */
#ifndef IMGTK_CLI_CONVERT_OPTIONS_H
#define IMGTK_CLI_CONVERT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"
#include "progress.h"

#define CONVERT_MAX_SOURCES 256

/* What is short for --storage-opts. */
struct convert_network {
    const char *connections, *requests, *request_size, *timeout, *retries;
};

struct convert_options {
    struct cli_common common;
    const char *format, *source_backing_format, *snapshot;
    const char *target_format, *backing, *backing_format;
    const char *relative_to, *relative_format;
    const char *sparse, *workers, *threads, *cache, *source_cache, *copy_range, *rate, *queue;
    bool allocated, no_extents, synchronous;
    const char *checksum;
    bool verify, existing, is_zero, zeroed, compress, salvage, no_sync, resume, image_opts;
    struct progress_options progress;
    struct convert_network network;
    struct cli_list options;
    int64_t sparse_size;   /* of `sparse` */
    unsigned worker_count; /* of `workers` */
    uint64_t rate_limit, queue_size; /* of `rate` and `queue` */
};

extern const struct cli_option convert_option_table[];

/* Before cli_parse(): tells nbdcopy's "-C N" from qemu-img's "-C". */
void convert_options_prepare(int argc, char **argv);

/* After it: the numbers, and whether what is asked for contradicts itself. target NULL: only help is wanted. */
int convert_options_check(struct cli *cli, struct convert_options *options, const char *target, size_t sources);

/* After cli_start(): hands over what network storages are to know. */
int convert_options_network(struct cli *cli, const struct convert_options *options);

/* As many threads as are wanted and as --queue-size has room for; 0: the default. */
unsigned convert_options_workers(const struct cli *cli, const struct convert_options *options);

/* What -l names; `copy` has room for its text. */
const char *convert_options_snapshot(const struct convert_options *options, char *copy);

/* Of -t and -T: the modes in which qemu-img goes around the page cache, and those in which it writes through. */
bool convert_drops_cache(const char *mode);
bool convert_writes_through(const char *mode);

/* The image goes there, so that everything else goes to standard error. */
bool convert_to_stdout(const char *target);

#endif
