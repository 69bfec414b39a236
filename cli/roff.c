#include "roff.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "help.h"
#include "options.h"
#include "output.h"

/* A '-' that is not a hyphen, a quote that can be pasted into a shell, and so on; see groff_char(7). */
static const char *escape(char c)
{
    switch (c) {
    case '\\':
        return "\\e";
    case '-':
        return "\\-";
    case '\'':
        return "\\(aq";
    case '`':
        return "\\(ga";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

/* A '.' that begins a line would be a request. */
static void print_text(const char *text)
{
    for (bool begins = true; *text; begins = *text++ == '\n') {
        if (begins && *text == '.')
            fputs("\\&", stdout);
        if (escape(*text))
            fputs(escape(*text), stdout);
        else
            putchar(*text);
    }
}

static void print_sentence(const char *text)
{
    print_text(text);
    puts(*text && text[strlen(text) - 1] == '.' ? "" : ".");
}

static void print_capital(const char *text)
{
    putchar(toupper((unsigned char)*text));
    print_sentence(*text ? text + 1 : text);
}

/* ---- Commands ------------------------------------------------------------- */

static void print_commands(void)
{
    for (const struct cli_command *const *command = cli_commands; *command; command++) {
        printf(".TP\n.BR imgtk\\-%s (1)\n", (*command)->name);
        print_sentence((*command)->summary);
    }
}

/* NAME and SYNOPSIS. */
static void print_synopsis(const struct cli_command *command)
{
    printf(".SH NAME\nimgtk\\-%s \\- %c", command->name, tolower((unsigned char)command->summary[0]));
    print_text(command->summary + 1);
    printf("\n.SH SYNOPSIS\n.B imgtk %s\n.I ", command->name);
    print_text(command->operands);
    putchar('\n');
}

static void print_options(const struct cli_command *command)
{
    for (const struct cli_option *option = command->options; !option_is_end(option); option++) {
        char spelling[HELP_SPELLING_SIZE];
        if (!option->help)
            continue;
        help_spelling(option, spelling);
        fputs(".TP\n.B ", stdout);
        print_text(spelling);
        putchar('\n');
        print_sentence(option->help);
    }
}

static void print_examples(const struct cli_command *command)
{
    if (!command->examples)
        return;
    puts(".SH EXAMPLES\n.nf");
    print_text(command->examples);
    puts(".fi");
}

static void print_exits(const struct cli_command *command)
{
    puts(".SH EXIT STATUS");
    for (const struct cli_exit *exit = help_exits(command); exit->meaning; exit++) {
        printf(".TP\n.B %d\n", exit->code);
        print_capital(exit->meaning);
    }
}

/* ---- Formats and storages --------------------------------------------------- */

static void print_list(const char *title, const char *const *names)
{
    if (!names || !*names)
        return;
    printf("%s ", title);
    for (const char *const *name = names; *name; name++) {
        fputs(name == names ? "" : ", ", stdout);
        print_text(*name);
    }
    puts(".");
}

static void print_table(const char *title, const struct imgtk_opt *row)
{
    static const char *const types[] = { "on|off", "NUMBER", "SIZE", "", "TEXT" };
    if (!row || !row->name)
        return;
    printf(".PP\n%s\n", title);
    for (; row->name; row++) {
        printf(".TP\n.BI %s= ", row->name);
        for (const char *const *choice = row->choices; choice && *choice; choice++)
            printf("%s%s", choice == row->choices ? "" : "|\\:", *choice); /* a line may break there */
        puts(row->choices ? "" : types[row->type]);
        print_sentence(row->help);
        if (row->default_text) {
            fputs("Default: ", stdout);
            print_sentence(row->default_text);
        }
    }
}

static void print_format(const struct imgtk_driver *driver)
{
    printf(".SS %s\n", driver->name);
    print_capital(driver->description);
    print_list("Also called", driver->aliases);
    print_list("Suffixes:", driver->suffixes);
    print_table("Options of an image that is read, for \\fB\\-\\-image\\-opts\\fR:", driver->open_opts);
    print_table("Options of an image that is made, for \\fB\\-o\\fR:", driver->create_opts);
}

static void print_storage(const struct imgtk_storage_ops *storage)
{
    printf(".SS %s\n", storage->name);
    print_capital(storage->description);
    print_list("Names begin with", storage->schemes);
    print_table("Options, for \\fB\\-\\-storage\\-opts\\fR:", storage->opts);
}

static int print_modules(struct cli *cli, bool formats)
{
    struct cli_common common = { .quiet = true };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_module *modules;
    size_t count;
    int code = cli_start(cli, &common);
    if (code)
        return code;
    if (imgtk_modules(cli->context, &modules, &count, &err))
        return cli_fail(cli, NULL, &err);
    for (size_t i = 0; i < count; i++) {
        if (formats && modules[i].driver)
            print_format(modules[i].driver);
        else if (!formats && modules[i].storage)
            print_storage(modules[i].storage);
    }
    return CLI_OK;
}

/* ---- Choosing ----------------------------------------------------------------- */

static const struct { const char *name; void (*print)(const struct cli_command *command); } parts[] = {
    { "synopsis", print_synopsis }, { "options", print_options }, { "examples", print_examples },
    { "exits", print_exits },
};

int roff_print(struct cli *cli, int argc, char **argv)
{
    const char *part = argc > 0 ? argv[0] : "";
    const struct cli_command *command = argc > 1 ? cli_find_command(argv[1]) : NULL;
    if (strcmp(part, "commands") == 0) {
        print_commands();
        return CLI_OK;
    }
    if (strcmp(part, "formats") == 0 || strcmp(part, "storages") == 0)
        return print_modules(cli, part[0] == 'f');
    for (size_t i = 0; command && i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(part, parts[i].name) == 0) {
            parts[i].print(command);
            return CLI_OK;
        }
    }
    return cli_usage_error(cli, "there is no such part of the manual: %s", part);
}
