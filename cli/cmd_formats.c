#include <imgtk/info.h>
#include <stdio.h>
#include <stdlib.h>

#include "options.h"
#include "output.h"

struct values {
    struct cli_common common;
    const char *output;
};

static const struct cli_option options[] = {
    { '\0', "output", CLI_TEXT, offsetof(struct values, output), "human|json", "how to print the list (human)" },
    CLI_COMMON_OPTIONS
};

/* What a format can do, in the order in which it is told. */
static const struct { const char *name; uint32_t flag; } abilities[] = {
    { "stream", IMGTK_DRIVER_STREAM }, { "stream-read", IMGTK_DRIVER_STREAM_READ },
    { "compress", IMGTK_DRIVER_COMPRESS }, { "parallel", IMGTK_DRIVER_PARALLEL },
};

static void print_abilities(const struct imgtk_driver *driver)
{
    fputs("read", stdout);
    if (imgtk_driver_can_write(driver))
        fputs(" write", stdout);
    for (size_t i = 0; i < sizeof abilities / sizeof abilities[0]; i++)
        if (driver->flags & abilities[i].flag)
            printf(" %s", abilities[i].name);
    if (imgtk_driver_can_check(driver))
        fputs(" check", stdout);
    if (imgtk_driver_can_edit(driver))
        fputs(" edit", stdout);
    putchar('\n');
}

static void print_names(const char *title, const char *const *names)
{
    if (!names || !*names)
        return;
    printf("    %s:", title);
    for (; *names; names++)
        printf(" %s", *names);
    putchar('\n');
}

static const char *describe(const struct imgtk_module *module)
{
    if (module->skipped)
        return module->skipped;
    if (module->driver)
        return module->driver->description;
    return module->storage ? module->storage->description : module->digest->description;
}

static void print_module(const struct imgtk_module *module)
{
    printf("%s: %s", module->name, module->skipped ? "skipped: " : "");
    cli_print_text(describe(module));
    fputs("\n    module: ", stdout);
    cli_print_text(module->path);
    putchar('\n');
    if (module->driver) {
        printf("    version: %s\n    can: ", module->driver->version);
        print_abilities(module->driver);
        print_names("also called", module->driver->aliases);
        print_names("suffixes", module->driver->suffixes);
    } else if (module->storage) {
        printf("    version: %s\n", module->storage->version);
        print_names("schemes", module->storage->schemes);
    } else if (module->digest) {
        printf("    version: %s\n", module->digest->version);
    }
}

static void add_names(struct imgtk_info *info, const char *key, const char *const *names)
{
    if (!names || !*names)
        return;
    imgtk_info_begin_list(info, key);
    for (; *names; names++)
        imgtk_info_text(info, NULL, *names);
    imgtk_info_end(info);
}

static void add_driver(struct imgtk_info *info, const struct imgtk_driver *driver)
{
    imgtk_info_text(info, "kind", "format");
    imgtk_info_text(info, "description", driver->description);
    imgtk_info_text(info, "version", driver->version);
    imgtk_info_bool(info, "read", true);
    imgtk_info_bool(info, "write", imgtk_driver_can_write(driver));
    for (size_t i = 0; i < sizeof abilities / sizeof abilities[0]; i++)
        imgtk_info_bool(info, abilities[i].name, driver->flags & abilities[i].flag);
    imgtk_info_bool(info, "check", imgtk_driver_can_check(driver));
    imgtk_info_bool(info, "edit", imgtk_driver_can_edit(driver));
    add_names(info, "aliases", driver->aliases);
    add_names(info, "suffixes", driver->suffixes);
}

static void add_module(struct imgtk_info *info, const struct imgtk_module *module)
{
    imgtk_info_begin_object(info, NULL);
    imgtk_info_text(info, "name", module->name);
    imgtk_info_text(info, "path", module->path);
    if (module->skipped) {
        imgtk_info_text(info, "skipped", module->skipped);
    } else if (module->driver) {
        add_driver(info, module->driver);
    } else if (module->storage) {
        imgtk_info_text(info, "kind", "storage");
        imgtk_info_text(info, "description", module->storage->description);
        imgtk_info_text(info, "version", module->storage->version);
        add_names(info, "schemes", module->storage->schemes);
    } else {
        imgtk_info_text(info, "kind", "digest");
        imgtk_info_text(info, "description", module->digest->description);
        imgtk_info_text(info, "version", module->digest->version);
    }
    imgtk_info_end(info);
}

static int print_json(struct cli *cli, const struct imgtk_module *modules, size_t count)
{
    struct imgtk_info *info = imgtk_info_new(IMGTK_INFO_LIST);
    char *text = NULL;
    for (size_t i = 0; info && i < count; i++)
        add_module(info, &modules[i]);
    if (info && imgtk_info_status(info, NULL) == 0)
        text = imgtk_info_json(info);
    if (text)
        puts(text);
    int code = text ? CLI_OK : cli_error(cli, "out of memory");
    free(text);
    imgtk_info_free(info);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values values = { 0 };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_module *modules;
    enum cli_output output;
    size_t count;
    int code, first = cli_parse(cli, &cli_formats_command, argc, argv, &values, &code);
    if (first < 0)
        return code;
    if (first < argc)
        return cli_usage_error(cli, "Unexpected argument: %s", argv[first]);
    code = cli_parse_output(cli, values.output, &output);
    if (code == 0)
        code = cli_start(cli, &values.common);
    if (code)
        return code;
    if (imgtk_modules(cli->context, &modules, &count, &err))
        return cli_fail(cli, NULL, &err);
    if (output == CLI_OUTPUT_JSON)
        return print_json(cli, modules, count);
    for (size_t i = 0; i < count; i++)
        print_module(&modules[i]);
    return CLI_OK;
}

const struct cli_command cli_formats_command = {
    .name = "formats",
    .summary = "List the modules for formats, storages and digests, and what they can do",
    .operands = "[OPTION]...",
    .options = options,
    .examples =
        "imgtk formats\n"
        "imgtk formats --output=json\n",
    .run = run,
};
