#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum_value.h"
#include "confine.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "source.h"
#include "target.h"

#define MAX_SOURCES 256
#define PIECE_SIZE (2u << 20) /* what a thread of a conversion handles at once */
#define MAX_SPARSE_SIZE (16u << 20)

/* What is short for --storage-opts. */
struct network {
    const char *connections, *requests, *request_size, *timeout, *retries;
};

struct values {
    struct cli_common common;
    const char *format, *source_backing_format, *snapshot;
    const char *target_format, *backing, *backing_format;
    const char *relative_to, *relative_format;
    const char *sparse, *workers, *threads, *cache, *source_cache, *copy_range, *rate, *queue;
    bool allocated, no_extents, synchronous;
    const char *checksum;
    bool verify, existing, is_zero, zeroed, compress, salvage, no_sync, resume, image_opts;
    struct progress_options progress;
    struct network network;
    struct cli_list options;
    int64_t sparse_size; /* of `sparse` */
    unsigned worker_count; /* of `workers` */
    uint64_t rate_limit, queue_size; /* of `rate` and `queue` */
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "source-format", CLI_TEXT, FIELD(format), "FMT", "format of the sources (by their content)" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL,
      "the sources are given as driver=FMT,file.filename=NAME,..." },
    { '\0', "backing-format", CLI_TEXT, FIELD(source_backing_format), "FMT",
      "format of a source's backing file where the source does not record it" },
    { 'l', "snapshot", CLI_TEXT, FIELD(snapshot), "SNAPSHOT",
      "read that internal snapshot: its name or id, or snapshot.id=ID,snapshot.name=NAME" },
    { 'O', "target-format", CLI_TEXT, FIELD(target_format), "FMT",
      "format of the destination (by its suffix, else raw)" },
    { 'o', "target-options", CLI_LIST, FIELD(options), "OPTIONS",
      "options of the destination's format, name=value,...; may be given several times; 'help' lists them" },
    { 'c', "compress", CLI_FLAG, FIELD(compress), NULL, "compress the destination" },
    { 'S', "sparse-size", CLI_TEXT, FIELD(sparse), "SIZE",
      "how many bytes of zeroes at least become a hole (4k); 0: everything is written out" },
    { '\0', "sparse", CLI_TEXT, FIELD(sparse), "SIZE", NULL },
    { '\0', "allocated", CLI_FLAG, FIELD(allocated), NULL, "the same as -S 0: zeroes take up space in the destination" },
    { '\0', "no-extents", CLI_FLAG, FIELD(no_extents), NULL, "do not ask the sources for holes: read all of them" },
    { 'B', "backing", CLI_TEXT, FIELD(backing), "FILE",
      "make an overlay of this backing file: only what differs from it is written" },
    { 'b', NULL, CLI_TEXT, FIELD(backing), "FILE", NULL },
    { 'F', "target-backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the destination's backing file" },
    { '\0', "relative-to", CLI_TEXT, FIELD(relative_to), "BASE",
      "write only what differs from that image, which the destination does not record" },
    { '\0', "relative-format", CLI_TEXT, FIELD(relative_format), "FMT", "format of BASE (by its content)" },
    { 'n', "no-create", CLI_FLAG, FIELD(existing), NULL, "write into the destination that is there" },
    { '\0', "target-is-zero", CLI_FLAG, FIELD(is_zero), NULL, "with -n: the destination reads as zeroes already" },
    { '\0', "destination-is-zero", CLI_FLAG, FIELD(zeroed), NULL,
      "the same, also without -n: a server's export is written in place anyway" },
    { '\0', "salvage", CLI_FLAG, FIELD(salvage), NULL, "unreadable parts become zeroes, with a warning each" },
    { '\0', "no-sync", CLI_FLAG, FIELD(no_sync), NULL, "do not wait until the destination is on disk" },
    { '\0', "checksum", CLI_OPTIONAL, FIELD(checksum), "ALGORITHM",
      "print the checksum of the disk, as 'imgtk checksum' does: sha256 (the default) or blake2b" },
    { '\0', "verify", CLI_FLAG, FIELD(verify), NULL,
      "read the destination back and compare checksums before it gets its name" },
    { '\0', "resume", CLI_FLAG, FIELD(resume), NULL,
      "keep a journal beside the unfinished file, and go on with what an interrupted conversion left" },
    { 'm', "workers", CLI_TEXT, FIELD(workers), "N", "how many threads work (one more than there are CPUs)" },
    { '\0', "parallel", CLI_TEXT, FIELD(workers), "N", NULL },
    { '\0', "threads", CLI_TEXT, FIELD(threads), "N", "the same; 0 is the default" },
    { '\0', "queue-size", CLI_TEXT, FIELD(queue), "SIZE", "how much data may be on its way in memory, 2 MiB per thread" },
    { '\0', "synchronous", CLI_FLAG, FIELD(synchronous), NULL, "one thread, and one request to a server at a time" },
    { '\0', "rate-limit", CLI_TEXT, FIELD(rate), "SIZE", "bytes of data per second at most" },
    { '\0', "flush", CLI_ACCEPTED, 0, NULL, "accepted for nbdcopy's sake; the destination is flushed unless --no-sync is given" },
    { 'p', NULL, CLI_FLAG, FIELD(progress.show), NULL, "show progress" },
    { '\0', "progress", CLI_OPTIONAL, FIELD(progress.fd), "FD",
      "show progress, or write it to a file descriptor for a program" },
    { '\0', "progress-format", CLI_TEXT, FIELD(progress.format), "plain|jsonl",
      "what a program gets: lines 'N/100' (the default), or JSON objects" },
    { 't', "cache", CLI_TEXT, FIELD(cache), "MODE",
      "none or directsync: what is written does not stay in the page cache; writethrough or directsync: a server "
      "writes to its disk before it answers; writeback, unsafe: as it comes" },
    { 'T', "source-cache", CLI_TEXT, FIELD(source_cache), "MODE|N",
      "whether what is read stays in the page cache; a number is taken for --threads, as in nbdcopy" },
    { '\0', "connections", CLI_TEXT, FIELD(network.connections), "N", "connections to a server at once (NBD 4, HTTP 8)" },
    { 'R', "requests", CLI_TEXT, FIELD(network.requests), "N", "requests on their way at once, per connection (64)" },
    { '\0', "request-size", CLI_TEXT, FIELD(network.request_size), "SIZE", "bytes of a request to a server at most (256k)" },
    { '\0', "timeout", CLI_TEXT, FIELD(network.timeout), "SECONDS", "how long a server may owe an answer (60)" },
    { '\0', "retries", CLI_TEXT, FIELD(network.retries), "N",
      "how often an HTTP request is sent again after the connection was lost (5)" },
    { 'W', "out-of-order", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; workers are never held back" },
    { 'C', "copy-range", CLI_OPTIONAL, FIELD(copy_range), "N",
      "accepted for qemu-img's sake; the kernel copies where it can. With a number, the same as --connections" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; sources are never locked" },
    CLI_COMMON_OPTIONS
};

/* ---- Reading the command line --------------------------------------------- */

/* The modes in which qemu-img goes around the page cache. */
static bool drops_cache(const char *mode)
{
    return mode && (strcmp(mode, "none") == 0 || strcmp(mode, "off") == 0 || strcmp(mode, "directsync") == 0);
}

static bool writes_through(const char *mode)
{
    return mode && (strcmp(mode, "writethrough") == 0 || strcmp(mode, "directsync") == 0);
}

static int check_cache(struct cli *cli, const char *mode, const char *which)
{
    static const char *const modes[] = { "none", "off", "writeback", "writethrough", "directsync", "unsafe" };
    if (!mode)
        return 0;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(mode, modes[i]) == 0)
            return 0;
    return cli_error(cli, "Invalid %scache option: %s", which, mode);
}

static int parse_sparse(struct cli *cli, const char *text, int64_t *out)
{
    uint64_t size;
    *out = IMGTK_SPARSE_DEFAULT;
    if (!text)
        return 0;
    if (imgtk_parse_size(text, &size, NULL) || size % 512 != 0 || size > MAX_SPARSE_SIZE)
        return cli_error(cli, "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to "
                         "%u. Select 0 to disable sparse detection (fully allocates output).", MAX_SPARSE_SIZE);
    *out = (int64_t)size;
    return 0;
}

static int parse_queue(struct cli *cli, struct values *values)
{
    if (!values->queue || (imgtk_parse_size(values->queue, &values->queue_size, NULL) == 0 && values->queue_size > 0))
        return 0;
    return cli_error(cli, "Invalid queue size '%s'", values->queue);
}

/* Fewer threads where the queue has no room for a piece of each. */
static unsigned bound_workers(const struct cli *cli, const struct values *values)
{
    if (!values->queue)
        return values->worker_count;
    uint64_t room = values->queue_size / PIECE_SIZE > 0 ? values->queue_size / PIECE_SIZE : 1;
    unsigned workers = values->worker_count ? values->worker_count : imgtk_context_workers(cli->context);
    return room < workers ? (unsigned)room : workers;
}

static int parse_rate(struct cli *cli, struct values *values)
{
    if (!values->rate || (imgtk_parse_size(values->rate, &values->rate_limit, NULL) == 0 && values->rate_limit > 0))
        return 0;
    return cli_error(cli, "Invalid rate '%s': a number of bytes per second is expected, such as 50M", values->rate);
}

/* "snapshot.id=1", "snapshot.name=x" or the name or id itself. Given both, the id decides, since it is unique. */
static const char *snapshot_name(const char *text, char *copy)
{
    const char *name = NULL;
    if (!text || strncmp(text, "snapshot.", 9) != 0)
        return text;
    strcpy(copy, text);
    for (char *save, *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        if (strncmp(item, "snapshot.id=", 12) == 0)
            return item + 12;
        if (strncmp(item, "snapshot.name=", 14) == 0)
            name = item + 14;
    }
    return name ? name : text;
}

static void append_option(char *text, size_t size, const char *name, const char *value)
{
    size_t used = strlen(text);
    if (value)
        snprintf(text + used, size - used, "%s%s%s%s", used ? "," : "", name ? name : "", name ? "=" : "", value);
}

/* Those given by --storage-opts too: what has a name of its own comes last and wins. */
static int set_network_options(struct cli *cli, const struct values *values)
{
    const struct network *network = &values->network;
    char text[1024] = "";
    struct imgtk_error err = IMGTK_ERROR_INIT;
    append_option(text, sizeof text, NULL, values->common.storage_options);
    append_option(text, sizeof text, "connections", network->connections);
    append_option(text, sizeof text, "requests", network->requests);
    append_option(text, sizeof text, "request-size", network->request_size);
    append_option(text, sizeof text, "timeout", network->timeout);
    append_option(text, sizeof text, "retries", network->retries);
    if (strlen(text) == sizeof text - 1)
        return cli_usage_error(cli, "the options for network storages are longer than %zu bytes", sizeof text - 2);
    if (!*text || !imgtk_context_set_storage_options(cli->context, text, &err))
        return 0;
    return cli_fail(cli, NULL, &err);
}

/* The image goes there, so that everything else goes to standard error. */
static bool is_stdout(const char *target)
{
    return strcmp(target, "-") == 0 || strcmp(target, "fd:1") == 0 || strcmp(target, "/dev/stdout") == 0;
}

/* What contradicts itself is refused before anything is opened. */
static int check_combination(struct cli *cli, const struct values *values, const char *target, size_t sources)
{
    if (values->is_zero && !values->existing)
        return cli_error(cli, "--target-is-zero requires use of -n flag");
    if (values->snapshot && sources > 1)
        return cli_error(cli, "No support for concatenating multiple snapshot");
    if (values->backing && sources > 1)
        return cli_error(cli, "Having a backing file for the target makes no sense when concatenating multiple input "
                         "images");
    if (values->existing && strcmp(target, "-") == 0)
        return cli_error(cli, "-n and a pipe as destination contradict each other");
    if ((values->is_zero || values->zeroed) && values->backing)
        return cli_error(cli, "--target-is-zero cannot be used when the destination image has a backing file");
    if (values->verify && is_stdout(target))
        return cli_error(cli, "--verify and a pipe as destination contradict each other: it cannot be read back");
    if ((values->verify || values->checksum) && values->relative_to)
        return cli_error(cli, "--checksum and --verify are of the whole disk: they cannot be combined with --relative-to");
    if (sources > MAX_SOURCES)
        return cli_error(cli, "%zu sources are given, the limit is %d", sources, MAX_SOURCES);
    int failed = check_cache(cli, values->cache, "");
    return failed ? failed : check_cache(cli, values->source_cache, "source ");
}

static bool is_number(const char *text)
{
    return *text && text[strspn(text, "0123456789")] == '\0';
}

/* nbdcopy's "-C N" beside qemu-img's -C, which takes no argument: a source that has a number as its name comes first. */
static void find_connections(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "-C") == 0 && is_number(argv[i + 1]) && access(argv[i + 1], F_OK) != 0)
            argv[i] = (char *)(uintptr_t)"--connections";
}

static void take_numbers(struct values *values)
{
    if (values->source_cache && is_number(values->source_cache)) {
        values->threads = values->source_cache;
        values->source_cache = NULL;
    }
    if (values->copy_range && is_number(values->copy_range) && !values->network.connections)
        values->network.connections = values->copy_range;
    if (values->threads && strcmp(values->threads, "0") != 0 && !values->workers)
        values->workers = values->threads;
}

static int parse_values(struct cli *cli, struct values *values)
{
    if (values->allocated && !values->sparse)
        values->sparse = "0";
    if (values->synchronous && !values->workers)
        values->workers = "1";
    if (values->synchronous && !values->network.requests)
        values->network.requests = "1";
    int failed = parse_sparse(cli, values->sparse, &values->sparse_size);
    if (failed == 0)
        failed = cli_parse_workers(cli, values->workers, &values->worker_count);
    if (failed == 0)
        failed = parse_queue(cli, values);
    return failed ? failed : parse_rate(cli, values);
}

/* ---- Doing it ------------------------------------------------------------- */

struct inputs {
    struct source parsed[MAX_SOURCES];
    struct imgtk_image *images[MAX_SOURCES];
    size_t count;
};

static void close_inputs(struct inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++) {
        imgtk_image_close(inputs->images[i]);
        source_free(&inputs->parsed[i]);
    }
}

static int parse_inputs(struct cli *cli, const struct values *values, char **names, const char *snapshot,
                        struct inputs *inputs)
{
    int failed = 0;
    for (size_t i = 0; i < inputs->count && failed == 0; i++) {
        struct source *source = &inputs->parsed[i];
        failed = source_parse(cli, names[i], values->format, values->image_opts, source);
        source->request.snapshot = snapshot;
        source->request.backing_format = values->source_backing_format;
        source->request.drop_cache = drops_cache(values->source_cache);
        source->request.in_order = !values->salvage && !values->resume;
        if (failed == 0)
            failed = confine_add(cli, CONFINE_READ, source->name);
    }
    return failed;
}

static int open_inputs(struct cli *cli, struct inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++) {
        const struct source *source = &inputs->parsed[i];
        int failed = source_open(cli, source, &inputs->images[i]);
        if (failed)
            return failed;
    }
    return 0;
}

/* To people at once, to logs with -v; on stderr, since a destination may be standard output under another name. */
static void tell_guesses(const struct cli *cli, const struct inputs *inputs, const struct target *target, const char *name)
{
    char text[1024] = "converting";
    bool guessed = target->guessed != NULL, wanted = cli->verbose || (isatty(STDERR_FILENO) && !cli->quiet);
    for (size_t i = 0; i < inputs->count; i++) {
        const struct imgtk_layer *layer = imgtk_image_layer(inputs->images[i], 0);
        const struct source *source = &inputs->parsed[i];
        const char *reason = layer->format_guessed ? ", since no format recognises its content" : ", by its content";
        guessed = guessed || !source->request.format;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s %s (%s%s)", i > 0 ? "," : "", source->name, layer->driver->name,
                 source->request.format ? "" : reason);
    }
    if (guessed && wanted && !cli->as_qemu_img)
        cli_tell(cli, "%s to %s (%s%s%s)", text, name, target->driver->name, target->guessed ? ", " : "",
                  target->guessed ? target->guessed : "");
}

static int convert(struct cli *cli, const struct values *values, struct imgtk_convert *job)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    struct progress_options shown = values->progress;
    if (cli->quiet)
        shown.show = false;
    struct imgtk_digest_value digest = { 0 };
    bool to_stdout = is_stdout(job->target.name);
    int code = progress_start(cli, &shown, to_stdout, &progress);
    if (code)
        return code;
    job->digest = values->checksum ? &digest : NULL;
    job->progress = progress_update;
    job->progress_context = &progress;
    job->cancel = signals_stop();
    int status = imgtk_convert(cli->context, job, &err);
    progress_finish(&progress, status == 0);
    if (status)
        return cli_fail(cli, NULL, &err);
    if (values->checksum)
        checksum_print(to_stdout ? stderr : stdout, &digest, job->target.name);
    return CLI_OK;
}

static void report_salvaged(void *context, uint64_t offset, uint64_t length, const char *reason)
{
    cli_error(context, "warning: %llu bytes at offset %llu become zeroes: %s", (unsigned long long)length,
              (unsigned long long)offset, reason);
}

static int check_target(struct cli *cli, const struct values *values, const struct target *target, const char *name)
{
    if (values->compress && !(target->driver->flags & IMGTK_DRIVER_COMPRESS))
        return cli_error(cli, "Compression not supported for this file format");
    if (!imgtk_driver_can_write(target->driver))
        return cli_error(cli, "%s: the format %s cannot be written", name, target->driver->name);
    if (target->backing && !target->backing_format)
        return cli_error(cli, "Use of backing file requires explicit backing format");
    return 0;
}

/* NULL: the default one. */
static const char *algorithm(const struct values *values)
{
    return values->checksum && *values->checksum ? values->checksum : NULL;
}

static int confine(struct cli *cli, const struct values *values, const struct target *target, const char *name)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if ((values->resume || values->verify) && imgtk_context_trust(cli->context) != IMGTK_TRUSTED)
        return cli_error(cli, "--%s reads in the folder of the destination, which --untrusted does not allow",
                         values->resume ? "resume" : "verify");
    if ((values->checksum || values->verify) && imgtk_load_digest(cli->context, algorithm(values), &err))
        return cli_fail(cli, NULL, &err);
    int failed = target_confine(cli, target, name);
    if (failed == 0)
        failed = confine_add(cli, CONFINE_READ, values->relative_to);
    return failed ? failed : confine_enter(cli);
}

static int convert_opened(struct cli *cli, const struct values *values, const struct target *target, const char *name,
                          const struct inputs *inputs)
{
    struct imgtk_image *backing = NULL;
    struct source base = { 0 };
    struct imgtk_convert job = {
        .sources = inputs->images, .source_count = inputs->count,
        .salvaged = values->salvage ? report_salvaged : NULL, .salvage_context = cli,
        .sparse_size = values->sparse_size, .workers = bound_workers(cli, values), .no_extents = values->no_extents,
        .rate_limit = values->rate_limit, .verify = values->verify,
        .algorithm = algorithm(values),
        .target = { .name = name, .format = target->driver->name, .format_opts = target->options,
                    .existing = values->existing, .is_zero = values->is_zero || values->zeroed,
                    .compress = values->compress,
                    .drop_cache = drops_cache(values->cache), .write_through = writes_through(values->cache),
                    .no_sync = values->no_sync, .resume = values->resume },
    };
    int code = 0;
    if (target->backing)
        code = target_open_backing(cli, target, name, &backing);
    job.backing = backing;
    if (code == 0 && values->relative_to)
        code = source_parse(cli, values->relative_to, values->relative_format, false, &base);
    if (code == 0 && values->relative_to)
        code = source_open(cli, &base, &job.relative_to);
    if (code == 0)
        code = convert(cli, values, &job);
    imgtk_image_close(job.relative_to);
    source_free(&base);
    imgtk_image_close(backing);
    return code;
}

static int convert_named(struct cli *cli, const struct values *values, char **names, size_t count, const char *name)
{
    struct target target;
    struct inputs *inputs = calloc(1, sizeof *inputs);
    char *copy = strdup(values->snapshot ? values->snapshot : "");
    struct target_request request = { name, values->target_format, &values->options, values->backing,
                                      values->backing_format };
    if (values->backing && !values->backing_format)
        request.backing_format = values->source_backing_format; /* qemu-img's long name for -F */
    if (!inputs || !copy) {
        free(inputs);
        free(copy);
        return cli_error(cli, "out of memory");
    }
    inputs->count = count;
    int code = target_prepare(cli, &request, &target);
    if (code == 0)
        code = check_target(cli, values, &target, name);
    if (code == 0)
        code = parse_inputs(cli, values, names, snapshot_name(values->snapshot, copy), inputs);
    if (code == 0)
        code = confine(cli, values, &target, name);
    if (code == 0)
        code = open_inputs(cli, inputs);
    if (code == 0) {
        tell_guesses(cli, inputs, &target, name);
        code = convert_opened(cli, values, &target, name, inputs);
    }
    close_inputs(inputs);
    target_free(&target);
    free(inputs);
    free(copy);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    find_connections(argc, argv);
    int code, first = cli_parse(cli, &cli_convert_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    take_numbers(&values);
    bool help = target_wants_help(&values.options);
    if (argc - first < 2 && !help)
        return cli_usage_error(cli, "Must specify image file name");
    const char *target = argc > first ? argv[argc - 1] : NULL;
    size_t sources = argc > first ? (size_t)(argc - first - 1) : 0;
    if (!help)
        code = check_combination(cli, &values, target, sources);
    if (code == 0)
        code = parse_values(cli, &values);
    signals_catch();
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code == 0)
        code = set_network_options(cli, &values);
    if (code)
        return code;
    if (help)
        return target_print_help(cli, target, values.target_format);
    imgtk_context_set_cancel(cli->context, signals_stop());
    return convert_named(cli, &values, argv + first, sources, target);
}

static const struct cli_exit exits[] = {
    { 0, "the destination is complete" },
    { 1, "failure: what was under its name before is still there, unless -n was given" },
    { 0, NULL }
};

const struct cli_command cli_convert_command = {
    .name = "convert",
    .summary = "Convert a disk image to another format",
    .operands = "[OPTION]... SOURCE... DESTINATION",
    .options = options,
    .notes =
        "Several sources are put one behind the other. '-' is standard input or output. The destination\n"
        "appears under its name only when it is complete.\n",
    .examples =
        "imgtk convert -p disk.qcow2 disk.raw\n"
        "imgtk convert -c -O qcow2 -o compression_type=zstd disk.raw disk.qcow2\n"
        "imgtk convert -O qcow2 -B base.qcow2 -F qcow2 disk.raw overlay.qcow2\n"
        "imgtk convert --checksum --verify disk.qcow2 disk.raw\n"
        "imgtk convert -O qcow2 disk.raw - | ssh host 'cat > disk.qcow2'\n",
    .exits = exits,
    .run = run,
};
