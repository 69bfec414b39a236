#include <imgtk/info.h>
#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "checksum_value.h"
#include "confine.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "source.h"

struct values {
    struct cli_common common;
    const char *format, *backing_format, *snapshot, *algorithm, *expected, *workers, *output;
    bool image_opts, flat;
    struct progress_options progress;
    unsigned worker_count; /* of `workers` */
    enum cli_output form;  /* of `output` */
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the images (by their content)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing file where an image does not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { 'l', "snapshot", CLI_TEXT, FIELD(snapshot), "SNAPSHOT", "read that internal snapshot, by name or id" },
    { 'a', "algorithm", CLI_TEXT, FIELD(algorithm), "DIGEST", "sha256 (the default) or blake2b" },
    { 'd', "digest", CLI_TEXT, FIELD(algorithm), "DIGEST", NULL },
    { '\0', "flat", CLI_FLAG, FIELD(flat), NULL,
      "what sha256sum or b2sum tells of the raw disk; holes take time then" },
    { '\0', "expect", CLI_TEXT, FIELD(expected), "HEX", "fail unless this is the checksum" },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json", "how to print it (human)" },
    { 'm', "workers", CLI_TEXT, FIELD(workers), "N", "how many threads read and compute (as many as there are CPUs)" },
    PROGRESS_OPTIONS(FIELD(progress)),
    { 'T', "source-cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake" },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

static int print_json(struct cli *cli, const struct imgtk_checksum *job, const char *name)
{
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT);
    char digest[CHECKSUM_TEXT], *text = NULL;
    checksum_format(&job->digest, digest);
    if (info) {
        imgtk_info_text(info, "filename", name);
        imgtk_info_text(info, "format", imgtk_image_layer(job->image, 0)->driver->name);
        imgtk_info_number(info, "virtual-size", imgtk_image_size(job->image));
        imgtk_info_text(info, "algorithm", job->algorithm ? job->algorithm : IMGTK_DIGEST_DEFAULT);
        imgtk_info_bool(info, "flat", job->flat);
        imgtk_info_text(info, "checksum", digest);
        text = imgtk_info_status(info, NULL) == 0 ? imgtk_info_json(info) : NULL;
    }
    if (text)
        puts(text);
    free(text);
    imgtk_info_free(info);
    return text ? CLI_OK : cli_error(cli, "out of memory");
}

static int tell(struct cli *cli, const struct values *values, const struct imgtk_checksum *job, const char *name)
{
    char digest[CHECKSUM_TEXT];
    int code = CLI_OK;
    if (values->form == CLI_OUTPUT_JSON)
        code = print_json(cli, job, name);
    else if (!cli->quiet)
        checksum_print(stdout, &job->digest, name);
    checksum_format(&job->digest, digest);
    if (code == CLI_OK && values->expected && strcasecmp(digest, values->expected) != 0)
        return cli_error(cli, "%s: the checksum is %s, %s was expected", name, digest, values->expected);
    return code;
}

static int compute(struct cli *cli, const struct values *values, struct imgtk_checksum *job, const char *name)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    int code = progress_start(cli, &values->progress, false, &progress);
    if (code)
        return code;
    job->progress = progress_update;
    job->progress_context = &progress;
    job->cancel = signals_stop();
    int status = imgtk_checksum(cli->context, job, &err);
    progress_finish(&progress, status == 0);
    return status ? cli_fail(cli, NULL, &err) : tell(cli, values, job, name);
}

static int checksum_named(struct cli *cli, const struct values *values, const char *name)
{
    struct source source = { .memory = NULL };
    struct imgtk_checksum job = { .algorithm = values->algorithm, .flat = values->flat,
                                  .workers = values->worker_count };
    int code = source_parse(cli, name, values->format, values->image_opts, &source);
    source.request.backing_format = values->backing_format;
    source.request.snapshot = values->snapshot;
    source.request.in_order = true;
    if (code == 0)
        code = source_open(cli, &source, &job.image);
    if (code == 0)
        code = compute(cli, values, &job, source.name);
    imgtk_image_close(job.image);
    source_free(&source);
    return code;
}

static int confine(struct cli *cli, const struct values *values, char **names, int count)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int code = 0;
    for (int i = 0; i < count && code == 0; i++) {
        struct source source;
        code = source_parse(cli, names[i], values->format, values->image_opts, &source);
        if (code == 0)
            code = confine_add(cli, CONFINE_READ, source.name);
        source_free(&source);
    }
    if (code == 0 && imgtk_load_digest(cli->context, values->algorithm, &err))
        code = cli_fail(cli, NULL, &err);
    return code ? code : confine_enter(cli);
}

static int parse_values(struct cli *cli, struct values *values, int count)
{
    if (count < 1)
        return cli_usage_error(cli, "Expecting one image file name or more");
    if (values->expected && count > 1)
        return cli_usage_error(cli, "--expect is about one image, and %d are given", count);
    int failed = cli_parse_workers(cli, values->workers, &values->worker_count);
    return failed ? failed : cli_parse_output(cli, values->output, &values->form);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    int code, first = cli_parse(cli, &cli_checksum_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    code = parse_values(cli, &values, argc - first);
    signals_catch();
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code)
        return code;
    code = confine(cli, &values, argv + first, argc - first);
    if (code)
        return code;
    /* As sha256sum does: one that cannot be read does not keep the others from being told. */
    for (int i = first; i < argc && !imgtk_cancel_reason(signals_stop()); i++)
        if (checksum_named(cli, &values, argv[i]) != CLI_OK)
            code = CLI_FAILED;
    return code;
}

static const struct cli_exit exits[] = {
    { 0, "success" },
    { 1, "an image could not be read, or its checksum is not the expected one" },
    { 0, NULL }
};

const struct cli_command cli_checksum_command = {
    .name = "checksum",
    .summary = "Tell a checksum of the disk that an image holds",
    .operands = "[OPTION]... FILE...",
    .options = options,
    .examples =
        "imgtk checksum disk.qcow2 disk.raw\n"
        "imgtk checksum --flat disk.qcow2\n"
        "imgtk checksum - < disk.raw\n",
    .exits = exits,
    .run = run,
};
