#include "help.h"

#include <stdio.h>
#include <string.h>

#include "options.h"
#include "output.h"

#define HELP_COLUMN 26
#define EXIT_COLUMN 6
#define SUMMARY_COLUMN 13
#define WIDTH_MAX 100u
#define WIDTH_MIN 50u

/* Prints words, wrapped at the terminal's width; each line begins at `indent`, where the cursor is already. */
static void print_wrapped(const char *text, int indent)
{
    size_t width = cli_terminal_width(stdout, WIDTH_MAX), start = (size_t)indent, column = start;
    width = width > WIDTH_MAX ? WIDTH_MAX : width < WIDTH_MIN ? WIDTH_MIN : width;
    while (*text) {
        size_t word = strcspn(text, " \n");
        if (column > start && column + 1 + word > width) {
            printf("\n%*s", indent, "");
            column = start;
        } else if (column > start) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)word, text);
        column += word;
        text += word;
        text += strspn(text, " \n");
    }
    putchar('\n');
}

void help_print_program(const struct cli *cli)
{
    const char *name = cli->program;
    printf("Usage: %s COMMAND [OPTION]... ARGUMENT...\n"
           "Convert, create and look into virtual disk images.\n\nCommands:\n", name);
    for (const struct cli_command *const *command = cli_commands; *command; command++) {
        printf("  %-10s ", (*command)->name);
        print_wrapped((*command)->summary, SUMMARY_COLUMN);
    }
    printf("  %-10s %s\n\n", "help", "Tell how a command is used");
    printf("Examples:\n"
           "  %s convert -p disk.qcow2 disk.raw        each file's format is found out\n"
           "  %s convert -c -O qcow2 disk.vmdk disk.qcow2\n"
           "  %s info disk.qcow2\n"
           "  %s map --output=json disk.qcow2\n"
           "  %s create -f qcow2 disk.qcow2 20G\n\n",
           name, name, name, name, name);
    printf("'%s help COMMAND' lists a command's options, '%s --version' the version.\n"
           "Exit codes: 0 success, 1 failure; 'check' and 'compare' have more.\n",
           name, name);
}

/* ---- Options -------------------------------------------------------------- */

void help_spelling(const struct cli_option *option, char out[HELP_SPELLING_SIZE])
{
    size_t used = 0, size = HELP_SPELLING_SIZE;
    out[0] = '\0';
    do {
        const char *argument = option->argument;
        char open[3] = "", close[2] = "";
        if (argument && option->name)
            memcpy(open, option->kind == CLI_OPTIONAL ? "[=" : "=", option->kind == CLI_OPTIONAL ? 3 : 2);
        else if (argument)
            memcpy(open, " ", 2);
        if (option->kind == CLI_OPTIONAL)
            memcpy(close, "]", 2);
        char letter[5] = "";
        if (option->letter)
            snprintf(letter, sizeof letter, "-%c%s", option->letter, option->name ? ", " : "");
        int length = snprintf(out + used, size - used, "%s%s%s%s%s%s%s", used ? ", " : "", letter,
                              option->name ? "--" : "", option->name ? option->name : "", open,
                              argument ? argument : "", close);
        used += length > 0 && (size_t)length < size - used ? (size_t)length : 0;
        option++;
    } while (!option_is_end(option) && !option->help);
}

static void print_options(const struct cli_option *option)
{
    puts("\nOptions:");
    for (; !option_is_end(option); option++) {
        char spelling[HELP_SPELLING_SIZE];
        if (!option->help)
            continue;
        help_spelling(option, spelling);
        int width = printf("  %s", spelling);
        if (width > HELP_COLUMN - 2) {
            putchar('\n');
            width = 0;
        }
        printf("%*s", HELP_COLUMN - width, "");
        print_wrapped(option->help, HELP_COLUMN);
    }
}

/* ---- The rest ------------------------------------------------------------- */

const struct cli_exit *help_exits(const struct cli_command *command)
{
    static const struct cli_exit usual[] = { { 0, "success" }, { 1, "failure" }, { 0, NULL } };
    return command->exits ? command->exits : usual;
}

static void print_examples(const char *text)
{
    puts("\nExamples:");
    while (*text) {
        size_t line = strcspn(text, "\n");
        printf("  %.*s\n", (int)line, text);
        text += line + (text[line] == '\n');
    }
}

void help_print_command(const struct cli *cli, const struct cli_command *command)
{
    printf("Usage: %s %s %s\n%s.\n", cli->program, command->name, command->operands, command->summary);
    print_options(command->options);
    if (command->notes) {
        putchar('\n');
        print_wrapped(command->notes, 0);
    }
    if (command->examples)
        print_examples(command->examples);
    puts("\nExit codes:");
    for (const struct cli_exit *exit = help_exits(command); exit->meaning; exit++) {
        printf("  %-3d ", exit->code);
        print_wrapped(exit->meaning, EXIT_COLUMN);
    }
}
