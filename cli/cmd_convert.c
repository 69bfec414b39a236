#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum_value.h"
#include "confine.h"
#include "convert_options.h"
#include "output.h"
#include "signals.h"
#include "source.h"
#include "target.h"

struct inputs {
    struct source parsed[CONVERT_MAX_SOURCES];
    struct imgtk_image *images[CONVERT_MAX_SOURCES];
    size_t count;
};

static void close_inputs(struct inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++) {
        imgtk_image_close(inputs->images[i]);
        source_free(&inputs->parsed[i]);
    }
}

static int parse_inputs(struct cli *cli, const struct convert_options *options, char **names, const char *snapshot,
                        struct inputs *inputs)
{
    int failed = 0;
    for (size_t i = 0; i < inputs->count && failed == 0; i++) {
        struct source *source = &inputs->parsed[i];
        failed = source_parse(cli, names[i], options->format, options->image_opts, source);
        source->request.snapshot = snapshot;
        source->request.backing_format = options->source_backing_format;
        source->request.drop_cache = convert_drops_cache(options->source_cache);
        source->request.in_order = !options->salvage && !options->resume;
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
static void tell_guesses(const struct cli *cli, const struct inputs *inputs, const struct target *target,
                         const char *name)
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

static int convert(struct cli *cli, const struct convert_options *options, struct imgtk_convert *job)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    struct imgtk_digest_value digest = { 0 };
    bool to_stdout = convert_to_stdout(job->target.name);
    int code = progress_start(cli, &options->progress, to_stdout, &progress);
    if (code)
        return code;
    job->digest = options->checksum ? &digest : NULL;
    job->progress = progress_update;
    job->progress_context = &progress;
    job->cancel = signals_stop();
    int status = imgtk_convert(cli->context, job, &err);
    progress_finish(&progress, status == 0);
    if (status)
        return cli_fail(cli, NULL, &err);
    if (options->checksum)
        checksum_print(to_stdout ? stderr : stdout, &digest, job->target.name);
    return CLI_OK;
}

static void report_salvaged(void *context, uint64_t offset, uint64_t length, const char *reason)
{
    cli_error(context, "warning: %llu bytes at offset %llu become zeroes: %s", (unsigned long long)length,
              (unsigned long long)offset, reason);
}

static int check_target(struct cli *cli, const struct convert_options *options, const struct target *target,
                        const char *name)
{
    if (options->compress && !(target->driver->flags & IMGTK_DRIVER_COMPRESS))
        return cli_error(cli, "Compression not supported for this file format");
    if (!imgtk_driver_can_write(target->driver))
        return cli_error(cli, "%s: the format %s cannot be written", name, target->driver->name);
    if (target->backing && !target->backing_format)
        return cli_error(cli, "Use of backing file requires explicit backing format");
    return 0;
}

/* NULL: the default one. */
static const char *algorithm(const struct convert_options *options)
{
    return options->checksum && *options->checksum ? options->checksum : NULL;
}

static int confine(struct cli *cli, const struct convert_options *options, const struct target *target,
                   const char *name)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if ((options->resume || options->verify) && imgtk_context_trust(cli->context) != IMGTK_TRUSTED)
        return cli_error(cli, "--%s reads in the folder of the destination, which --untrusted does not allow",
                         options->resume ? "resume" : "verify");
    if ((options->checksum || options->verify) && imgtk_load_digest(cli->context, algorithm(options), &err))
        return cli_fail(cli, NULL, &err);
    int failed = target_confine(cli, target, name);
    if (failed == 0)
        failed = confine_add(cli, CONFINE_READ, options->relative_to);
    return failed ? failed : confine_enter(cli);
}

static int convert_opened(struct cli *cli, const struct convert_options *options, const struct target *target,
                          const char *name, const struct inputs *inputs)
{
    struct imgtk_image *backing = NULL;
    struct source base = { 0 };
    struct imgtk_convert job = {
        .sources = inputs->images,
        .source_count = inputs->count,
        .salvaged = options->salvage ? report_salvaged : NULL,
        .salvage_context = cli,
        .sparse_size = options->sparse_size,
        .workers = convert_options_workers(cli, options),
        .no_extents = options->no_extents,
        .rate_limit = options->rate_limit,
        .verify = options->verify,
        .algorithm = algorithm(options),
        .target = { .name = name,
                    .format = target->driver->name,
                    .format_opts = target->options,
                    .existing = options->existing,
                    .is_zero = options->is_zero || options->zeroed,
                    .compress = options->compress,
                    .drop_cache = convert_drops_cache(options->cache),
                    .write_through = convert_writes_through(options->cache),
                    .no_sync = options->no_sync,
                    .resume = options->resume },
    };
    int code = 0;
    if (target->backing)
        code = target_open_backing(cli, target, name, &backing);
    job.backing = backing;
    if (code == 0 && options->relative_to)
        code = source_parse(cli, options->relative_to, options->relative_format, false, &base);
    if (code == 0 && options->relative_to)
        code = source_open(cli, &base, &job.relative_to);
    if (code == 0)
        code = convert(cli, options, &job);
    imgtk_image_close(job.relative_to);
    source_free(&base);
    imgtk_image_close(backing);
    return code;
}

static int convert_named(struct cli *cli, const struct convert_options *options, char **names, size_t count,
                         const char *name)
{
    struct target target;
    struct inputs *inputs = calloc(1, sizeof *inputs);
    char *copy = strdup(options->snapshot ? options->snapshot : "");
    struct target_request request = { name, options->target_format, &options->options, options->backing,
                                      options->backing_format };
    if (options->backing && !options->backing_format)
        request.backing_format = options->source_backing_format; /* qemu-img's long name for -F */
    if (!inputs || !copy) {
        free(inputs);
        free(copy);
        return cli_error(cli, "out of memory");
    }
    inputs->count = count;
    int code = target_prepare(cli, &request, &target);
    if (code == 0)
        code = check_target(cli, options, &target, name);
    if (code == 0)
        code = parse_inputs(cli, options, names, convert_options_snapshot(options, copy), inputs);
    if (code == 0)
        code = confine(cli, options, &target, name);
    if (code == 0)
        code = open_inputs(cli, inputs);
    if (code == 0) {
        tell_guesses(cli, inputs, &target, name);
        code = convert_opened(cli, options, &target, name, inputs);
    }
    close_inputs(inputs);
    target_free(&target);
    free(inputs);
    free(copy);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct convert_options options = { 0 };
    convert_options_prepare(argc, argv);
    int code, first = cli_parse(cli, &cli_convert_command, argc, argv, &options, &code);
    if (first < 0)
        return code;
    bool help = target_wants_help(&options.options);
    if (argc - first < 2 && !help)
        return cli_usage_error(cli, "Must specify image file name");
    const char *target = argc > first ? argv[argc - 1] : NULL;
    size_t sources = argc > first ? (size_t)(argc - first - 1) : 0;
    code = convert_options_check(cli, &options, help ? NULL : target, sources);
    signals_catch();
    if (code == 0)
        code = cli_start(cli, &options.common);
    if (code == 0)
        code = convert_options_network(cli, &options);
    if (code)
        return code;
    if (help)
        return target_print_help(cli, target, options.target_format);
    return convert_named(cli, &options, argv + first, sources, target);
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
    .options = convert_option_table,
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
