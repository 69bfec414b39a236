#include "options.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "help.h"
#include "output.h"

#define MAX_OPTIONS 80
#define LONG_BASE 256 /* what getopt_long returns for row i: LONG_BASE + i */

/* A table in getopt's own terms. */
struct grammar {
    struct option longs[MAX_OPTIONS + 1];
    char shorts[3 * MAX_OPTIONS + 2];
};

static void make_grammar(const struct cli_option *options, struct grammar *grammar)
{
    size_t longs = 0, shorts = 0;
    memset(grammar, 0, sizeof *grammar);
    grammar->shorts[shorts++] = ':';
    for (size_t i = 0; !option_is_end(&options[i]) && i < MAX_OPTIONS; i++) {
        const struct cli_option *option = &options[i];
        if (option->name)
            grammar->longs[longs++] = (struct option){
                option->name,
                !option->argument ? no_argument : option->kind == CLI_OPTIONAL ? optional_argument : required_argument,
                NULL, LONG_BASE + (int)i };
        if (option->letter) {
            grammar->shorts[shorts++] = option->letter;
            if (option->argument)
                grammar->shorts[shorts++] = ':';
            if (option->argument && option->kind == CLI_OPTIONAL)
                grammar->shorts[shorts++] = ':';
        }
    }
}

static const struct cli_option *find_option(const struct cli_option *options, int code)
{
    if (code >= LONG_BASE)
        return &options[code - LONG_BASE];
    for (; !option_is_end(options); options++)
        if (options->letter == code)
            return options;
    return NULL;
}

static int store(struct cli *cli, const struct cli_option *option, char *argument, void *values)
{
    void *field = (char *)values + option->field;
    struct cli_list *list = field;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        break;
    case CLI_TEXT:
        *(const char **)field = argument;
        break;
    case CLI_OPTIONAL:
        *(const char **)field = argument ? argument : "";
        break;
    case CLI_LIST:
        if (list->count == CLI_LIST_MAX)
            return cli_usage_error(cli, "the option '%s' is given more than %d times", option->name, CLI_LIST_MAX);
        list->items[list->count++] = argument;
        break;
    case CLI_ACCEPTED:
        break;
    }
    return 0;
}

int cli_usage_error(struct cli *cli, const char *format, ...)
{
    char message[IMGTK_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    cli_error(cli, "%s", message);
    fprintf(stderr, "Try '%s %s%s--help' for more information\n", cli->program, cli->command ? cli->command->name : "",
            cli->command ? " " : "");
    return CLI_FAILED;
}

static int unknown_option(struct cli *cli, const struct cli_option *options, char **argv)
{
    if (optopt != 0 && optopt < LONG_BASE)
        return cli_usage_error(cli, "unrecognized option '-%c'", optopt);
    const char *given = argv[optind - 1];
    if (optopt >= LONG_BASE)
        return cli_usage_error(cli, "the option '--%s' takes no argument", options[optopt - LONG_BASE].name);
    char word[64] = "";
    const char *names[MAX_OPTIONS + 1];
    size_t count = 0;
    if (strncmp(given, "--", 2) == 0)
        snprintf(word, sizeof word, "%.*s", (int)strcspn(given + 2, "="), given + 2);
    for (; !option_is_end(options) && count < MAX_OPTIONS; options++)
        if (options->name)
            names[count++] = options->name;
    names[count] = NULL;
    const char *near = imgtk_nearest_word(word, names);
    if (near)
        return cli_usage_error(cli, "unrecognized option '%s'; did you mean '--%s'?", given, near);
    return cli_usage_error(cli, "unrecognized option '%s'", given);
}

static int missing_argument(struct cli *cli, const struct cli_option *options)
{
    const struct cli_option *option = find_option(options, optopt);
    if (optopt >= LONG_BASE)
        return cli_usage_error(cli, "missing argument for option '--%s'", option->name);
    return cli_usage_error(cli, "missing argument for option '-%c'", optopt);
}

static int parse_all(struct cli *cli, const struct cli_option *options, int argc, char **argv, void *values)
{
    struct grammar grammar;
    make_grammar(options, &grammar);
    opterr = 0;
    optind = 0;
    for (int code; (code = getopt_long(argc, argv, grammar.shorts, grammar.longs, NULL)) != -1;) {
        if (code == ':')
            return missing_argument(cli, options);
        if (code == '?')
            return unknown_option(cli, options, argv);
        int failed = store(cli, find_option(options, code), optarg, values);
        if (failed)
            return failed;
    }
    return 0;
}

int cli_parse(struct cli *cli, const struct cli_command *command, int argc, char **argv, void *values, int *exit_code)
{
    struct cli_common *common = values;
    *exit_code = parse_all(cli, command->options, argc, argv, values);
    if (*exit_code)
        return -1;
    cli->quiet = common->quiet;
    cli->verbose = common->verbose;
    if (common->help) {
        help_print_command(cli, command);
        return -1;
    }
    return optind;
}
