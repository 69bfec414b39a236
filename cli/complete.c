#include "complete.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

/* The word to complete: what is kept of it as it is, and what is begun behind that. */
struct place {
    struct cli *cli;
    const char *word;
    size_t kept;
};

static void offer(const struct place *place, const char *text, const char *end, const char *meaning)
{
    const char *begun = place->word + place->kept;
    size_t length = strlen(begun);
    char full[256];
    snprintf(full, sizeof full, "%s%s", text, end);
    if (strncmp(full, begun, length) == 0)
        printf("%.*s%s\t%s\n", (int)place->kept, place->word, full, meaning ? meaning : "");
}

static void offer_files(const struct place *place, const char *kind)
{
    printf(":%s %.*s\n", kind, (int)place->kept, place->word);
}

static void offer_list(const struct place *place, const char *const *words)
{
    for (; words && *words; words++)
        offer(place, *words, "", NULL);
}

/* "human|json" */
static void offer_choices(const struct place *place, const char *choices)
{
    while (*choices) {
        char choice[64];
        size_t length = strcspn(choices, "|");
        snprintf(choice, sizeof choice, "%.*s", (int)length, choices);
        offer(place, choice, "", NULL);
        choices += length + (choices[length] == '|');
    }
}

/* ---- What only the modules know ------------------------------------------- */

static bool list_modules(struct cli *cli, const struct imgtk_module **modules, size_t *count)
{
    return imgtk_modules(cli->context, modules, count, NULL) == 0;
}

static void offer_formats(const struct place *place, bool writable)
{
    const struct imgtk_module *modules;
    size_t count;
    if (!list_modules(place->cli, &modules, &count))
        return;
    for (size_t i = 0; i < count; i++)
        if (modules[i].driver && (!writable || imgtk_driver_can_write(modules[i].driver)))
            offer(place, modules[i].driver->name, "", modules[i].driver->description);
}

static void offer_value(const struct place *place, const struct imgtk_opt *row)
{
    static const char *const states[] = { "on", "off", NULL };
    if (row->type == IMGTK_OPT_BOOL)
        offer_list(place, states);
    else if (row->type == IMGTK_OPT_CHOICE)
        offer_list(place, row->choices);
    else if (strcmp(row->name, "backing_fmt") == 0)
        offer_formats(place, false);
    else if (row->type == IMGTK_OPT_STRING && strstr(row->name, "file"))
        offer_files(place, "files");
}

/* The last item of "name=value,name=value", which is all that `place` has behind what is kept. */
static void offer_item(struct place place, const struct imgtk_opt *table)
{
    const char *comma = strrchr(place.word + place.kept, ',');
    if (comma)
        place.kept = (size_t)(comma + 1 - place.word);
    const char *item = place.word + place.kept, *equals = strchr(item, '=');
    if (equals)
        place.kept = (size_t)(equals + 1 - place.word);
    for (; table && table->name; table++) {
        if (!equals)
            offer(&place, table->name, "=", table->help);
        else if (strncmp(table->name, item, (size_t)(equals - item)) == 0 && !table->name[equals - item])
            offer_value(&place, table);
    }
}

static void offer_digests(const struct place *place)
{
    const struct imgtk_module *modules;
    size_t count;
    if (!list_modules(place->cli, &modules, &count))
        return;
    for (size_t i = 0; i < count; i++)
        if (modules[i].digest)
            offer(place, modules[i].name, "", modules[i].digest->description);
}

static void offer_storage_items(const struct place *place)
{
    const struct imgtk_module *modules;
    size_t count;
    if (!list_modules(place->cli, &modules, &count))
        return;
    for (size_t i = 0; i < count; i++)
        if (modules[i].storage)
            offer_item(*place, modules[i].storage->opts);
}

/* ---- The words before ------------------------------------------------------ */

struct line {
    const struct cli_command *command;
    const struct cli_option *pending; /* its argument is the next word */
    const char *format;               /* of the image that is made; NULL: not given */
    const char *operand;              /* the last one */
    bool operands_only;               /* behind "--" */
};

static const struct cli_option *option_by_letter(const struct cli_command *command, char letter)
{
    for (const struct cli_option *option = command->options; !option_is_end(option); option++)
        if (option->letter == letter)
            return option;
    return NULL;
}

static const struct cli_option *option_by_name(const struct cli_command *command, const char *name, size_t length)
{
    for (const struct cli_option *option = command->options; !option_is_end(option); option++)
        if (option->name && strncmp(option->name, name, length) == 0 && !option->name[length])
            return option;
    return NULL;
}

/* Whether its argument is the format that -o belongs to. */
static bool names_target(const struct cli_command *command, const struct cli_option *option)
{
    if (!option_by_letter(command, 'o'))
        return false;
    return option->letter == (option_by_letter(command, 'O') ? 'O' : 'f');
}

static void take_value(struct line *line, const struct cli_option *option, const char *value)
{
    if (names_target(line->command, option))
        line->format = value;
    line->pending = NULL;
}

static void take_long(struct line *line, const char *name)
{
    size_t length = strcspn(name, "=");
    const struct cli_option *option = option_by_name(line->command, name, length);
    if (option && name[length])
        take_value(line, option, name + length + 1);
    else if (option && option->argument && option->kind != CLI_OPTIONAL)
        line->pending = option;
}

/* "-c", "-fqcow2" or "-cf": NULL, or the option whose argument begins at *value. */
static const struct cli_option *find_joined(const struct cli_command *command, const char *letters, const char **value)
{
    for (; *letters; letters++) {
        const struct cli_option *option = option_by_letter(command, *letters);
        *value = letters + 1;
        if (!option || option->argument)
            return option;
    }
    return NULL;
}

static void take_word(struct line *line, const char *word)
{
    const char *value;
    if (line->pending) {
        take_value(line, line->pending, word);
    } else if (line->operands_only || word[0] != '-' || !word[1]) {
        line->operand = word;
    } else if (strcmp(word, "--") == 0) {
        line->operands_only = true;
    } else if (word[1] == '-') {
        take_long(line, word + 2);
    } else {
        const struct cli_option *option = find_joined(line->command, word + 1, &value);
        if (option && *value)
            take_value(line, option, value);
        else
            line->pending = option;
    }
}

/* ---- The word itself ------------------------------------------------------- */

/* The rule is that of target_prepare(); a wrong name has no options. */
static const struct imgtk_opt *target_options(const struct place *place, const struct line *line)
{
    const struct imgtk_driver *driver = NULL;
    if (!line->format && line->operand)
        driver = imgtk_driver_for_name(place->cli->context, line->operand);
    if (!driver && imgtk_driver_find(place->cli->context, line->format ? line->format : "raw", &driver, NULL))
        return NULL;
    return driver->create_opts;
}

static void offer_argument(const struct place *place, const struct line *line, const struct cli_option *option)
{
    if (strchr(option->argument, '|'))
        offer_choices(place, option->argument);
    else if (strcmp(option->argument, "FMT") == 0)
        offer_formats(place, names_target(line->command, option));
    else if (strcmp(option->argument, "DIGEST") == 0)
        offer_digests(place);
    else if (strcmp(option->argument, "FILE") == 0 || strcmp(option->argument, "BASE") == 0)
        offer_files(place, "files");
    else if (strcmp(option->argument, "DIR") == 0)
        offer_files(place, "folders");
    else if (strcmp(option->argument, "OPTIONS") == 0 && option->letter == 'o')
        offer_item(*place, target_options(place, line));
    else if (strcmp(option->argument, "OPTIONS") == 0)
        offer_storage_items(place);
}

/* Not those that are taken for the sake of old scripts alone. */
static void offer_options(const struct place *place, const struct cli_command *command)
{
    for (const struct cli_option *option = command->options; !option_is_end(option); option++) {
        char letter[] = { '-', option->letter, '\0' }, name[64];
        if (option->kind == CLI_ACCEPTED || !option->help)
            continue;
        if (option->letter)
            offer(place, letter, "", option->help);
        snprintf(name, sizeof name, "--%s", option->name ? option->name : "");
        if (option->name)
            offer(place, name, option->argument && option->kind != CLI_OPTIONAL ? "=" : "", option->help);
    }
}

static void complete_option(struct place place, const struct line *line)
{
    const char *word = place.word, *value = strchr(word, '=');
    const struct cli_option *option = NULL;
    if (word[1] == '-' && value)
        option = option_by_name(line->command, word + 2, (size_t)(value++ - word - 2));
    else if (word[1] != '-' && word[1])
        option = find_joined(line->command, word + 1, &value);
    if (!option || !option->argument || (word[1] != '-' && !*value)) {
        offer_options(&place, line->command);
        return;
    }
    place.kept = (size_t)(value - word);
    offer_argument(&place, line, option);
}

static void complete_word(const struct place *place, const struct line *line)
{
    if (line->pending)
        offer_argument(place, line, line->pending);
    else if (place->word[0] == '-' && !line->operands_only)
        complete_option(*place, line);
    else if (strstr(line->command->operands, "FILE") || strstr(line->command->operands, "SOURCE"))
        offer_files(place, "files");
}

static void offer_commands(const struct place *place)
{
    for (const struct cli_command *const *command = cli_commands; *command; command++)
        offer(place, (*command)->name, "", (*command)->summary);
}

int complete_print(struct cli *cli, int argc, char **argv)
{
    struct cli_common common = { .quiet = true };
    struct place place = { .cli = cli, .word = argc > 0 ? argv[argc - 1] : "" };
    struct line line = { .command = argc > 1 ? cli_find_command(argv[0]) : NULL };
    if (argc < 2 || (argc == 2 && strcmp(argv[0], "help") == 0))
        offer_commands(&place);
    if (argc < 2) {
        offer(&place, "help", "", "Tell how a command is used");
        offer(&place, "--help", "", "Tell which commands there are");
        offer(&place, "--version", "", "Tell the version");
    }
    if (!line.command)
        return CLI_OK;
    int code = cli_start(cli, &common);
    for (int i = 1; code == CLI_OK && i < argc - 1; i++)
        take_word(&line, argv[i]);
    if (code == CLI_OK)
        complete_word(&place, &line);
    return code;
}
