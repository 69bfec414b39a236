#include <imgtk/jobs.h>
#include <stdio.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "source.h"

enum { COMPARE_DIFFERENT = 1, COMPARE_OPEN_FAILED = 2, COMPARE_EXTENTS_FAILED = 3, COMPARE_READ_FAILED = 4 };

struct values {
    struct cli_common common;
    const char *format, *second_format, *backing_format;
    bool strict, image_opts;
    struct progress_options progress;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "a-format", CLI_TEXT, FIELD(format), "FMT", "format of the first image (by its content)" },
    { 'F', "b-format", CLI_TEXT, FIELD(second_format), "FMT", "format of the second image (by its content)" },
    { '\0', "backing-format", CLI_TEXT, FIELD(backing_format), "FMT",
      "format of the backing files where the images do not record it" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL,
      "the images are given as driver=FMT,file.filename=NAME,..." },
    { 's', "strict", CLI_FLAG, FIELD(strict), NULL, "sizes and what is allocated must be the same too" },
    PROGRESS_OPTIONS(FIELD(progress)),
    { 'T', "cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake" },
    { '\0', "source-cache", CLI_ACCEPTED, 0, "MODE", NULL },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

static int tell(const struct cli *cli, const struct imgtk_compare *job)
{
    uint64_t sizes[2] = { imgtk_image_size(job->images[0]), imgtk_image_size(job->images[1]) };
    uint64_t common = sizes[0] < sizes[1] ? sizes[0] : sizes[1];
    bool beyond = sizes[0] != sizes[1] && (job->difference == IMGTK_SAME || job->offset >= common);
    if (cli->quiet)
        return job->difference == IMGTK_SAME ? CLI_OK : COMPARE_DIFFERENT;
    if (beyond && job->difference != IMGTK_DIFFERENT_SIZE)
        puts("Warning: Image size mismatch!");
    switch (job->difference) {
    case IMGTK_SAME:
        puts("Images are identical.");
        return CLI_OK;
    case IMGTK_DIFFERENT_CONTENT:
        printf("Content mismatch at offset %llu!\n", (unsigned long long)job->offset);
        break;
    case IMGTK_DIFFERENT_SIZE:
        puts("Strict mode: Image size mismatch!");
        break;
    case IMGTK_DIFFERENT_ALLOCATION:
        printf("Strict mode: Offset %llu block status mismatch!\n", (unsigned long long)job->offset);
        break;
    }
    return COMPARE_DIFFERENT;
}

static int compare(struct cli *cli, const struct values *values, struct imgtk_image *const images[2])
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct progress progress;
    struct imgtk_compare job = { .images = { images[0], images[1] }, .strict = values->strict,
                                 .cancel = signals_stop(), .progress = progress_update, .progress_context = &progress };
    int code = progress_start(cli, &values->progress, false, &progress);
    if (code)
        return COMPARE_OPEN_FAILED;
    int status = imgtk_compare(cli->context, &job, &err);
    progress_finish(&progress, status == 0);
    if (status == 0)
        return tell(cli, &job);
    cli_fail(cli, NULL, &err);
    return job.extents_failed ? COMPARE_EXTENTS_FAILED : COMPARE_READ_FAILED;
}

static int parse_both(struct cli *cli, const struct values *values, char **names, struct source sources[2])
{
    int failed = 0;
    for (size_t i = 0; i < 2 && failed == 0; i++) {
        failed = source_parse(cli, names[i], i == 0 ? values->format : values->second_format, values->image_opts,
                              &sources[i]);
        sources[i].request.backing_format = values->backing_format;
        if (failed == 0)
            failed = confine_add(cli, CONFINE_READ, sources[i].name);
    }
    return failed ? failed : confine_enter(cli);
}

static int open_both(struct cli *cli, const struct values *values, char **names, struct source sources[2],
                     struct imgtk_image *images[2])
{
    int failed = parse_both(cli, values, names, sources);
    for (size_t i = 0; i < 2 && failed == 0; i++)
        failed = source_open(cli, &sources[i], &images[i]);
    return failed ? COMPARE_OPEN_FAILED : 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source sources[2] = { { .memory = NULL }, { .memory = NULL } };
    struct imgtk_image *images[2] = { NULL, NULL };
    cli->failure = COMPARE_OPEN_FAILED;
    int code, first = cli_parse(cli, &cli_compare_command, argc, argv, &values, &code);
    if (first < 0)
        return code ? COMPARE_OPEN_FAILED : CLI_OK;
    if (argc - first != 2) {
        cli_usage_error(cli, "Expecting two image file names");
        return COMPARE_OPEN_FAILED;
    }
    signals_catch();
    code = cli_start(cli, &values.common) ? COMPARE_OPEN_FAILED : 0;
    if (code == 0)
        code = open_both(cli, &values, argv + first, sources, images);
    if (code == 0)
        code = compare(cli, &values, images);
    for (size_t i = 0; i < 2; i++) {
        imgtk_image_close(images[i]);
        source_free(&sources[i]);
    }
    return code;
}

static const struct cli_exit exits[] = {
    { 0, "the same" },
    { 1, "different" },
    { 2, "an image could not be opened" },
    { 3, "what is allocated could not be found out" },
    { 4, "an image could not be read" },
    { 0, NULL }
};

const struct cli_command cli_compare_command = {
    .name = "compare",
    .summary = "Tell whether two images hold the same disk",
    .operands = "[OPTION]... FILE FILE",
    .options = options,
    .examples =
        "imgtk compare disk.qcow2 disk.raw\n"
        "imgtk compare -s -f raw -F raw one.raw other.raw\n",
    .exits = exits,
    .run = run,
};
