#include "target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "confine.h"
#include "options.h"
#include "output.h"
#include "source.h"

/* The format that a well-known suffix stands for, whether its module is installed or not; else raw. */
static const char *format_of_name(const char *name)
{
    static const char *const known[][2] = { { "qcow2", "qcow2" }, { "vmdk", "vmdk" }, { "vhd", "vpc" },
                                            { "vhdx", "vhdx" }, { "vdi", "vdi" } };
    const char *dot = name ? strrchr(name, '.') : NULL;
    for (size_t i = 0; dot && i < sizeof known / sizeof known[0]; i++)
        if (strcasecmp(dot + 1, known[i][0]) == 0)
            return known[i][1];
    return "raw";
}

/* *reason: why it is that format; NULL when the user named it. */
static int choose_driver(struct cli *cli, const char *name, const char *format, const struct imgtk_driver **out,
                         const char **reason)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    bool by_name = !format && !cli->as_qemu_img && name;
    *reason = format ? NULL : "by its suffix";
    *out = by_name ? imgtk_driver_for_name(cli->context, name) : NULL;
    if (*out)
        return 0;
    if (!format)
        format = by_name ? format_of_name(name) : "raw";
    if (*reason && strcmp(format, "raw") == 0)
        *reason = "since its name tells no format";
    if (imgtk_driver_find(cli->context, format, out, &err))
        return cli_fail(cli, *reason ? name : NULL, &err);
    return 0;
}

/* ---- Options -------------------------------------------------------------- */

/* A list that begins or ends with a single comma would run into the next one. */
static bool is_option_list(const char *text)
{
    size_t length = strlen(text), commas = 0;
    while (commas < length && text[length - 1 - commas] == ',')
        commas++;
    return length > 0 && text[0] != ',' && commas % 2 == 0;
}

static size_t doubled_length(const char *text)
{
    size_t length = 0;
    for (; text && *text; text++)
        length += *text == ',' ? 2 : 1;
    return length;
}

static char *append(char *at, const char *text)
{
    size_t length = strlen(text);
    memcpy(at, text, length);
    return at + length;
}

static char *append_pair(char *at, const char *begin, const char *key, const char *value)
{
    if (!value)
        return at;
    if (at != begin)
        *at++ = ',';
    at = append(at, key);
    for (; *value; value++) {
        if (*value == ',')
            *at++ = ',';
        *at++ = *value;
    }
    return at;
}

static int join_options(struct cli *cli, const struct target_request *request, char **out)
{
    size_t length = sizeof ",backing_file=,backing_fmt=" + doubled_length(request->backing) +
                    doubled_length(request->backing_format);
    for (size_t i = 0; i < request->options->count; i++) {
        if (!is_option_list(request->options->items[i]))
            return cli_error(cli, "Invalid option list: %s", request->options->items[i]);
        length += strlen(request->options->items[i]) + 1;
    }
    *out = malloc(length);
    if (!*out)
        return cli_error(cli, "out of memory for the options");
    char *at = *out;
    for (size_t i = 0; i < request->options->count; i++) {
        if (i > 0)
            *at++ = ',';
        at = append(at, request->options->items[i]);
    }
    at = append_pair(at, *out, "backing_file=", request->backing);
    at = append_pair(at, *out, "backing_fmt=", request->backing_format);
    *at = '\0';
    return 0;
}

static const struct imgtk_opt *find_row(const struct imgtk_opt *table, const char *name)
{
    for (; table && table->name; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

static int parse_options(struct cli *cli, const char *name, struct target *target)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const char *defaults = imgtk_context_format_options(cli->context, target->driver->name);
    target->parsed = imgtk_opts_new(target->driver->create_opts);
    if (!target->parsed)
        return cli_error(cli, "out of memory for the options");
    if (defaults && imgtk_opts_parse(target->parsed, target->driver->name, defaults, &err))
        return cli_fail(cli, "configuration: format_options", &err);
    if (imgtk_opts_parse(target->parsed, target->driver->name, target->options, &err))
        return cli_fail(cli, name, &err);
    return 0;
}

static int check_backing(struct cli *cli, const struct target_request *request, struct target *target)
{
    if (request->backing && !find_row(target->driver->create_opts, "backing_file"))
        return cli_error(cli, "%s: Backing file not supported for file format '%s'", request->name,
                         target->driver->name);
    if (request->backing_format && !find_row(target->driver->create_opts, "backing_fmt"))
        return cli_error(cli, "%s: Backing format not supported for file format '%s'", request->name,
                         target->driver->name);
    if (request->backing && !*request->backing)
        return cli_error(cli, "%s: Expected backing file name, got empty string", request->name);
    return 0;
}

int target_prepare(struct cli *cli, const struct target_request *request, struct target *out)
{
    memset(out, 0, sizeof *out);
    int failed = choose_driver(cli, request->name, request->format, &out->driver, &out->guessed);
    if (failed == 0)
        failed = check_backing(cli, request, out);
    if (failed == 0)
        failed = join_options(cli, request, &out->options);
    if (failed == 0)
        failed = parse_options(cli, request->name, out);
    if (failed)
        return failed;
    out->backing = imgtk_opts_text(out->parsed, "backing_file");
    out->backing_format = imgtk_opts_text(out->parsed, "backing_fmt");
    return 0;
}

void target_free(struct target *target)
{
    free(target->options);
    imgtk_opts_free(target->parsed);
    memset(target, 0, sizeof *target);
}

static int confine_beside(struct cli *cli, enum confine_use use, const char *name, const char *other)
{
    char *path = other ? source_resolve(name, other) : NULL;
    if (other && !path)
        return cli_error(cli, "out of memory");
    int failed = confine_add(cli, use, path);
    free(path);
    return failed;
}

int target_confine(struct cli *cli, const struct target *target, const char *name)
{
    bool has_data_file = find_row(target->driver->create_opts, "data_file") != NULL;
    const char *data_file = has_data_file ? imgtk_opts_text(target->parsed, "data_file") : NULL;
    int failed = confine_add(cli, CONFINE_CREATE, name);
    if (failed == 0)
        failed = confine_beside(cli, CONFINE_CREATE, name, data_file);
    return failed ? failed : confine_beside(cli, CONFINE_READ, name, target->backing);
}

/* ---- The backing file ----------------------------------------------------- */

/* A guess is told, but not recorded: what a guest wrote would decide it. */
static int refuse_unnamed_format(struct cli *cli, const char *name, const char *path)
{
    struct imgtk_image *image;
    const char *guess = NULL;
    struct imgtk_image_request request = { .single_layer = true };
    int code = cli_error(cli, "%s: Backing file specified without backing format", name);
    if (imgtk_image_open(cli->context, path, &request, &image, NULL) == 0) {
        guess = imgtk_image_layer(image, 0)->driver->name;
        fprintf(stderr, "Detected format of %s.\n", guess);
        imgtk_image_close(image);
    }
    return code;
}

int target_open_backing(struct cli *cli, const struct target *target, const char *name, struct imgtk_image **out)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image_request request = { .format = target->backing_format };
    char *path = source_resolve(name, target->backing);
    int code = 0;
    if (!path)
        return cli_error(cli, "out of memory");
    if (!target->backing_format) {
        code = refuse_unnamed_format(cli, name, path);
    } else if (imgtk_image_open(cli->context, path, &request, out, &err)) {
        code = cli_fail(cli, name, &err);
    }
    free(path);
    return code;
}

/* ---- Telling -------------------------------------------------------------- */

/* The order in which qemu-img prints options, and those whose default it leaves out. Only qcow2's size is not first. */
static const struct { const char *name; bool only_given; } print_order[] = {
    { "cluster_size", false }, { "extended_l2", false }, { "preallocation", true },
    { "compression_type", false }, { "size", false }, { "compat", true }, { "backing_file", true },
    { "backing_fmt", true }, { "data_file", true }, { "data_file_raw", true },
    { "adapter_type", true }, { "compat6", false },
    { "hwversion", false }, { "toolsversion", true }, { "log_size", false }, { "block_size", false },
    { "static", false }, { "lazy_refcounts", false }, { "refcount_bits", false }, { "subformat", true },
};
#define PRINT_ORDER_COUNT (sizeof print_order / sizeof print_order[0])

static void print_value(const struct target *target, const struct imgtk_opt *row)
{
    printf(" %s=", row->name);
    if (row->type == IMGTK_OPT_BOOL)
        fputs(imgtk_opts_bool(target->parsed, row->name) ? "on" : "off", stdout);
    else if (row->type == IMGTK_OPT_CHOICE || row->type == IMGTK_OPT_STRING)
        cli_print_text(imgtk_opts_text(target->parsed, row->name));
    else
        printf("%llu", (unsigned long long)imgtk_opts_number(target->parsed, row->name));
}

static bool is_ordered(const char *name)
{
    for (size_t i = 0; i < PRINT_ORDER_COUNT; i++)
        if (strcmp(print_order[i].name, name) == 0)
            return true;
    return false;
}

void target_print_formatting(const struct target *target, const char *name, uint64_t size)
{
    const struct imgtk_opt *table = target->driver->create_opts;
    fputs("Formatting '", stdout);
    cli_print_text(name);
    printf("', fmt=%s", target->driver->name);
    bool late_size = find_row(table, "cluster_size") != NULL;
    if (!late_size)
        printf(" size=%llu", (unsigned long long)size);
    for (size_t i = 0; i < PRINT_ORDER_COUNT; i++) {
        const struct imgtk_opt *row = find_row(table, print_order[i].name);
        bool shown = row && !print_order[i].only_given && row->default_text;
        if (strcmp(print_order[i].name, "size") == 0) {
            if (late_size)
                printf(" size=%llu", (unsigned long long)size);
        } else if (shown || (row && imgtk_opts_given(target->parsed, row->name))) {
            print_value(target, row);
        }
    }
    for (; table && table->name; table++)
        if (!is_ordered(table->name) && imgtk_opts_given(target->parsed, table->name))
            print_value(target, table);
    putchar('\n');
    fflush(stdout);
}

bool target_wants_help(const struct cli_list *options)
{
    for (size_t i = 0; i < options->count; i++) {
        for (const char *item = options->items[i]; *item;) {
            size_t length = strcspn(item, ",");
            if ((length == 4 && strncmp(item, "help", 4) == 0) || (length == 1 && *item == '?'))
                return true;
            item += length;
            item += *item == ',';
        }
    }
    return false;
}

static void print_option(const struct imgtk_opt *row)
{
    static const char *const types[] = { "bool (on/off)", "num", "size", "str", "str" };
    int width = printf("  %s=<%s>", row->name, types[row->type]);
    printf("%*s - %s", width < 24 ? 24 - width : 0, "", row->help);
    for (const char *const *choice = row->choices; choice && *choice; choice++)
        printf("%s%s", choice == row->choices ? ": " : ", ", *choice);
    if (row->default_text)
        printf(" (default: %s)", row->default_text);
    putchar('\n');
}

int target_print_help(struct cli *cli, const char *name, const char *format)
{
    const struct imgtk_driver *driver;
    const char *reason;
    int failed = choose_driver(cli, name, format, &driver, &reason);
    if (failed)
        return failed;
    printf("Supported %s options:\n", driver->name);
    for (const struct imgtk_opt *row = driver->create_opts; row && row->name; row++)
        print_option(row);
    return 0;
}
