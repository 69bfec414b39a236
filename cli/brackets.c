#include "brackets.h"

#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"

/* Appends " 'word'", in which a quote is '\''; `out` has room for it. */
static char *append_quoted(char *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:+@%";
    *out++ = ' ';
    if (*word && strspn(word, plain) == strlen(word))
        return stpcpy(out, word);
    *out++ = '\'';
    for (; *word; word++) {
        if (*word == '\'')
            out = stpcpy(out, "'\\'");
        *out++ = *word;
    }
    return stpcpy(out, "'");
}

static char *join(char **words, int count)
{
    size_t size = sizeof("[ ]");
    for (int i = 0; i < count; i++)
        size += 4 * strlen(words[i]) + 3;
    char *joined = malloc(size), *out = joined;
    if (!joined)
        return NULL;
    *out++ = '[';
    for (int i = 0; i < count; i++)
        out = append_quoted(out, words[i]);
    strcpy(out, " ]");
    return joined;
}

/* The "]" that belongs to the "[" at `from`; 0: none. */
static int find_end(int argc, char **argv, int from)
{
    for (int i = from + 1; i < argc; i++)
        if (strcmp(argv[i], "]") == 0)
            return i;
    return 0;
}

int brackets_join(struct cli *cli, int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "[") != 0)
            continue;
        int end = find_end(*argc, argv, i);
        if (end < i + 2)
            return cli_usage_error(cli, "a command stands between '[' and ']', as words of their own");
        if (cli->joined_count == CLI_JOINED_MAX)
            return cli_usage_error(cli, "more than %d commands in brackets are given", CLI_JOINED_MAX);
        char *joined = join(argv + i + 1, end - i - 1);
        if (!joined)
            return cli_error(cli, "out of memory");
        cli->joined[cli->joined_count++] = argv[i] = joined;
        /* With the NULL behind the last. */
        memmove(argv + i + 1, argv + end + 1, (size_t)(*argc - end) * sizeof(*argv));
        *argc -= end - i;
    }
    return 0;
}

void brackets_free(struct cli *cli)
{
    while (cli->joined_count > 0)
        free(cli->joined[--cli->joined_count]);
}
