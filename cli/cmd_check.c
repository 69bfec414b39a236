#include <imgtk/info.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "source.h"

enum { CHECK_CORRUPT = 2, CHECK_LEAKS = 3, CHECK_UNSUPPORTED = 63 };

struct values {
    struct cli_common common;
    const char *format, *output, *repair;
    bool image_opts;
};
#define FIELD(name) offsetof(struct values, name)

static const struct cli_option options[] = {
    { 'f', "format", CLI_TEXT, FIELD(format), "FMT", "format of the image (by its content)" },
    { '\0', "image-opts", CLI_FLAG, FIELD(image_opts), NULL, "FILE is given as driver=FMT,file.filename=NAME,..." },
    { '\0', "output", CLI_TEXT, FIELD(output), "human|json", "how to print the result (human)" },
    { 'r', "repair", CLI_TEXT, FIELD(repair), "leaks|all", "repair leaked clusters, or all that can be repaired" },
    { 'T', "cache", CLI_ACCEPTED, 0, "MODE", "accepted for qemu-img's sake" },
    { '\0', "source-cache", CLI_ACCEPTED, 0, "MODE", NULL },
    { 'U', "force-share", CLI_ACCEPTED, 0, NULL, "accepted for qemu-img's sake; images are never locked" },
    CLI_COMMON_OPTIONS
};

static void report(void *context, const char *message)
{
    (void)context;
    fflush(stdout);
    cli_put_text(stderr, message);
    putc('\n', stderr);
}

/* ---- Printing ------------------------------------------------------------- */

static void print_findings(const struct imgtk_check *check)
{
    if (check->corruptions == 0 && check->leaks == 0 && check->check_errors == 0) {
        puts("No errors were found on the image.");
        return;
    }
    if (check->corruptions)
        printf("\n%llu errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               (unsigned long long)check->corruptions);
    if (check->leaks)
        printf("\n%llu leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n", (unsigned long long)check->leaks);
    if (check->check_errors)
        printf("\n%llu internal errors have occurred during the check.\n", (unsigned long long)check->check_errors);
}

static double share(uint64_t part, uint64_t whole)
{
    return 100.0 * (double)part / (double)whole;
}

static void print_human(const struct imgtk_check *check)
{
    print_findings(check);
    if (check->total_clusters && check->allocated_clusters)
        printf("%llu/%llu = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
               (unsigned long long)check->allocated_clusters, (unsigned long long)check->total_clusters,
               share(check->allocated_clusters, check->total_clusters),
               share(check->fragmented_clusters, check->allocated_clusters),
               share(check->compressed_clusters, check->allocated_clusters));
    if (check->image_end_offset)
        printf("Image end offset: %llu\n", (unsigned long long)check->image_end_offset);
}

static void add_unless_zero(struct imgtk_info *info, const char *key, uint64_t value)
{
    if (value)
        imgtk_info_number(info, key, value);
}

static int print_json(struct cli *cli, const char *name, const char *format, const struct imgtk_check *check)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_OBJECT);
    if (!info)
        return cli_error(cli, "out of memory");
    add_unless_zero(info, "image-end-offset", check->image_end_offset);
    add_unless_zero(info, "compressed-clusters", check->compressed_clusters);
    add_unless_zero(info, "total-clusters", check->total_clusters);
    imgtk_info_number(info, "check-errors", check->check_errors);
    add_unless_zero(info, "corruptions-fixed", check->corruptions_fixed);
    add_unless_zero(info, "allocated-clusters", check->allocated_clusters);
    imgtk_info_text(info, "filename", name);
    imgtk_info_text(info, "format", format);
    add_unless_zero(info, "fragmented-clusters", check->fragmented_clusters);
    add_unless_zero(info, "leaks", check->leaks);
    add_unless_zero(info, "corruptions", check->corruptions);
    add_unless_zero(info, "leaks-fixed", check->leaks_fixed);
    int code = imgtk_info_status(info, &err) ? cli_fail(cli, NULL, &err) : 0;
    char *text = imgtk_info_json(info);
    if (text)
        puts(text);
    free(text);
    imgtk_info_free(info);
    return code;
}

/* ---- Doing it ------------------------------------------------------------- */

/* What was repaired is checked again, as a check of its own. */
static int check_again(struct cli *cli, struct imgtk_image *image, bool human, struct imgtk_check *check,
                       struct imgtk_error *err)
{
    struct imgtk_check second = { .workers = check->workers, .report = report };
    if (human && !cli->quiet)
        printf("The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n"
               "    %llu corruptions\n\nDouble checking the fixed image now...\n",
               (unsigned long long)check->leaks_fixed, (unsigned long long)check->corruptions_fixed);
    int status = imgtk_image_check(image, &second, err);
    second.leaks_fixed = check->leaks_fixed;
    second.corruptions_fixed = check->corruptions_fixed;
    *check = second;
    return status;
}

static int exit_code(const struct imgtk_check *check)
{
    if (check->check_errors)
        return CLI_FAILED;
    if (check->corruptions)
        return CHECK_CORRUPT;
    return check->leaks ? CHECK_LEAKS : CLI_OK;
}

static int check_image(struct cli *cli, struct imgtk_image *image, const char *name, uint32_t repair,
                       enum cli_output output)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_check check = { .repair = repair, .workers = imgtk_context_workers(cli->context), .report = report };
    int status = imgtk_image_check(image, &check, &err);
    if (status == IMGTK_EUNSUPPORTED) {
        cli_error(cli, "%s", repair ? err.message : "This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    if (status == 0 && (check.leaks_fixed || check.corruptions_fixed))
        status = check_again(cli, image, output == CLI_OUTPUT_HUMAN, &check, &err);
    if (status)
        return cli_fail(cli, name, &err);
    if (output == CLI_OUTPUT_JSON) {
        int failed = print_json(cli, name, imgtk_image_layer(image, 0)->driver->name, &check);
        if (failed)
            return failed;
    } else if (!cli->quiet) {
        print_human(&check);
    }
    return exit_code(&check);
}

static int parse_repair(struct cli *cli, const char *text, uint32_t *out)
{
    *out = 0;
    if (!text)
        return 0;
    if (strcmp(text, "leaks") == 0)
        *out = IMGTK_REPAIR_LEAKS;
    else if (strcmp(text, "all") == 0)
        *out = IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS;
    else
        return cli_usage_error(cli, "Unknown option value for -r (expecting 'leaks' or 'all'): %s", text);
    return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct source source = { 0 };
    struct imgtk_image *image = NULL;
    enum cli_output output;
    uint32_t repair;
    int code, first = cli_parse(cli, &cli_check_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (argc - first != 1)
        return cli_usage_error(cli, "Expecting one image file name");
    code = cli_parse_output(cli, values.output, &output);
    if (code == 0)
        code = parse_repair(cli, values.repair, &repair);
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code == 0)
        code = source_parse(cli, argv[first], values.format, values.image_opts, &source);
    if (code == 0)
        code = confine_add(cli, repair ? CONFINE_EDIT : CONFINE_READ, source.name);
    if (code == 0)
        code = confine_enter(cli);
    source.request.single_layer = true;
    source.request.check = true;
    source.request.writable = code == 0 && repair != 0;
    if (code == 0)
        code = source_open(cli, &source, &image);
    if (code == 0)
        code = check_image(cli, image, source.name, repair, output);
    imgtk_image_close(image);
    source_free(&source);
    return code;
}

static const struct cli_exit exits[] = {
    { 0, "no fault" },
    { 1, "the check could not be done, or not to its end" },
    { 2, "the image is corrupt" },
    { 3, "clusters are leaked: space is wasted, data are not harmed" },
    { 63, "the format has nothing to check" },
    { 0, NULL }
};

const struct cli_command cli_check_command = {
    .name = "check",
    .summary = "Check the consistency of an image",
    .operands = "[OPTION]... FILE",
    .options = options,
    .examples =
        "imgtk check disk.qcow2\n"
        "imgtk check -r leaks disk.qcow2\n",
    .exits = exits,
    .run = run,
};
