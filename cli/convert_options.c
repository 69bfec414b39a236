#include "convert_options.h"

#include <imgtk/jobs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

#define THREAD_SIZE (2u << 20) /* what a thread of a conversion holds in memory at most */
#define MAX_SPARSE_SIZE (16u << 20)
#define FIELD(name) offsetof(struct convert_options, name)

const struct cli_option convert_option_table[] = {
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
    { '\0', "allocated", CLI_FLAG, FIELD(allocated), NULL,
      "the same as -S 0: zeroes take up space in the destination" },
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
    { 'm', "workers", CLI_TEXT, FIELD(workers), "N", "how many threads work (as many as there are CPUs)" },
    { '\0', "parallel", CLI_TEXT, FIELD(workers), "N", NULL },
    { '\0', "threads", CLI_TEXT, FIELD(threads), "N", "the same; 0 is the default" },
    { '\0', "queue-size", CLI_TEXT, FIELD(queue), "SIZE",
      "how much data may be on its way in memory, 2 MiB per thread" },
    { '\0', "synchronous", CLI_FLAG, FIELD(synchronous), NULL, "one thread, and one request to a server at a time" },
    { 'r', "rate-limit", CLI_TEXT, FIELD(rate), "SIZE", "bytes of data per second at most" },
    { '\0', "flush", CLI_ACCEPTED, 0, NULL,
      "accepted for nbdcopy's sake; the destination is flushed unless --no-sync is given" },
    PROGRESS_OPTIONS(FIELD(progress)),
    { 't', "cache", CLI_TEXT, FIELD(cache), "MODE",
      "none or directsync: what is written does not stay in the page cache; writethrough or directsync: a server "
      "writes to its disk before it answers; writeback, unsafe: as it comes" },
    { 'T', "source-cache", CLI_TEXT, FIELD(source_cache), "MODE|N",
      "whether what is read stays in the page cache; a number is taken for --threads, as in nbdcopy" },
    { '\0', "connections", CLI_TEXT, FIELD(network.connections), "N",
      "connections to a server at once (NBD 4, HTTP 8)" },
    { 'R', "requests", CLI_TEXT, FIELD(network.requests), "N", "requests on their way at once, per connection (64)" },
    { '\0', "request-size", CLI_TEXT, FIELD(network.request_size), "SIZE",
      "bytes of a request to a server at most (256k)" },
    { '\0', "timeout", CLI_TEXT, FIELD(network.timeout), "SECONDS", "how long a server may owe an answer (60)" },
    { '\0', "retries", CLI_TEXT, FIELD(network.retries), "N",
      "how often an HTTP request is sent again after the connection was lost (5)" },
    { 'W', "out-of-order", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; workers are never held back" },
    { 'C', "copy-range", CLI_OPTIONAL, FIELD(copy_range), "N",
      "accepted for qemu-img's sake; the kernel copies where it can. With a number, the same as --connections" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; sources are never locked" },
    CLI_COMMON_OPTIONS
};

bool convert_drops_cache(const char *mode)
{
    return mode && (strcmp(mode, "none") == 0 || strcmp(mode, "off") == 0 || strcmp(mode, "directsync") == 0);
}

bool convert_writes_through(const char *mode)
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

static int parse_queue(struct cli *cli, struct convert_options *options)
{
    if (!options->queue ||
        (imgtk_parse_size(options->queue, &options->queue_size, NULL) == 0 && options->queue_size > 0))
        return 0;
    return cli_error(cli, "Invalid queue size '%s'", options->queue);
}

/* Fewer threads where the queue has no room for a piece of each. */
unsigned convert_options_workers(const struct cli *cli, const struct convert_options *options)
{
    if (!options->queue)
        return options->worker_count;
    uint64_t room = options->queue_size / THREAD_SIZE > 0 ? options->queue_size / THREAD_SIZE : 1;
    unsigned workers = options->worker_count ? options->worker_count : imgtk_context_workers(cli->context);
    return room < workers ? (unsigned)room : workers;
}

static int parse_rate(struct cli *cli, struct convert_options *options)
{
    if (!options->rate || (imgtk_parse_size(options->rate, &options->rate_limit, NULL) == 0 && options->rate_limit > 0))
        return 0;
    return cli_error(cli, "Invalid rate '%s': a number of bytes per second is expected, such as 50M", options->rate);
}

/* "snapshot.id=1", "snapshot.name=x" or the name or id itself. Given both, the id decides, since it is unique. */
const char *convert_options_snapshot(const struct convert_options *options, char *copy)
{
    const char *name = NULL, *text = options->snapshot;
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
int convert_options_network(struct cli *cli, const struct convert_options *options)
{
    const struct convert_network *network = &options->network;
    char text[1024] = "";
    struct imgtk_error err = IMGTK_ERROR_INIT;
    append_option(text, sizeof text, NULL, options->common.storage_options);
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

bool convert_to_stdout(const char *target)
{
    return strcmp(target, "-") == 0 || strcmp(target, "fd:1") == 0 || strcmp(target, "/dev/stdout") == 0;
}

/* What contradicts itself is refused before anything is opened. */
static int check_combination(struct cli *cli, const struct convert_options *options, const char *target, size_t sources)
{
    if (options->is_zero && !options->existing)
        return cli_error(cli, "--target-is-zero requires use of -n flag");
    if (options->snapshot && sources > 1)
        return cli_error(cli, "No support for concatenating multiple snapshot");
    if (options->backing && sources > 1)
        return cli_error(cli, "Having a backing file for the target makes no sense when concatenating multiple input "
                         "images");
    if (options->existing && strcmp(target, "-") == 0)
        return cli_error(cli, "-n and a pipe as destination contradict each other");
    if ((options->is_zero || options->zeroed) && options->backing)
        return cli_error(cli, "--target-is-zero cannot be used when the destination image has a backing file");
    if (options->verify && convert_to_stdout(target))
        return cli_error(cli, "--verify and a pipe as destination contradict each other: it cannot be read back");
    if ((options->verify || options->checksum) && options->relative_to)
        return cli_error(cli,
                         "--checksum and --verify are of the whole disk: they cannot be combined with --relative-to");
    if (sources > CONVERT_MAX_SOURCES)
        return cli_error(cli, "%zu sources are given, the limit is %d", sources, CONVERT_MAX_SOURCES);
    int failed = check_cache(cli, options->cache, "");
    return failed ? failed : check_cache(cli, options->source_cache, "source ");
}

static bool is_number(const char *text)
{
    return *text && text[strspn(text, "0123456789")] == '\0';
}

/* nbdcopy's "-C N" beside qemu-img's -C, which takes no argument: a file that has a number as its name comes first. */
void convert_options_prepare(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "-C") == 0 && is_number(argv[i + 1]) && access(argv[i + 1], F_OK) != 0)
            argv[i] = (char *)(uintptr_t)"--connections";
}

static void take_numbers(struct convert_options *options)
{
    if (options->source_cache && is_number(options->source_cache)) {
        options->threads = options->source_cache;
        options->source_cache = NULL;
    }
    if (options->copy_range && is_number(options->copy_range) && !options->network.connections)
        options->network.connections = options->copy_range;
    if (options->threads && strcmp(options->threads, "0") != 0 && !options->workers)
        options->workers = options->threads;
}

static int parse_values(struct cli *cli, struct convert_options *options)
{
    if (options->allocated && !options->sparse)
        options->sparse = "0";
    if (options->synchronous && !options->workers)
        options->workers = "1";
    if (options->synchronous && !options->network.requests)
        options->network.requests = "1";
    int failed = parse_sparse(cli, options->sparse, &options->sparse_size);
    if (failed == 0)
        failed = cli_parse_workers(cli, options->workers, &options->worker_count);
    if (failed == 0)
        failed = parse_queue(cli, options);
    return failed ? failed : parse_rate(cli, options);
}

int convert_options_check(struct cli *cli, struct convert_options *options, const char *target, size_t sources)
{
    take_numbers(options);
    int failed = target ? check_combination(cli, options, target, sources) : 0;
    return failed ? failed : parse_values(cli, options);
}
