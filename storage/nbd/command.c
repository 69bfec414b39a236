/* A server's command line, as it stands in a name: "[ nbdkit file 'my disk.img' ]". */
#include <stdlib.h>
#include <string.h>

#include "nbd.h"

static bool is_space(char letter)
{
    return letter == ' ' || letter == '\t' || letter == '\n';
}

/* Copies the word that begins at *in to *out, without its quotes; false: a quote is not closed. */
static bool take_word(const char **in, char **out)
{
    char quote = '\0';
    for (; **in && (quote || !is_space(**in)); (*in)++) {
        char letter = **in;
        if (letter == '\\' && quote != '\'' && (*in)[1])
            *(*out)++ = *++(*in);
        else if (quote ? letter == quote : letter == '\'' || letter == '"')
            quote = quote ? '\0' : letter;
        else
            *(*out)++ = letter;
    }
    *(*out)++ = '\0';
    return !quote;
}

static int split(const char *text, char **words, size_t *count, char *letters, struct imgtk_error *err)
{
    *count = 0;
    for (;;) {
        while (is_space(*text))
            text++;
        if (!*text)
            break;
        if (*count == NBD_MAX_WORDS)
            return imgtk_fail(err, IMGTK_ELIMIT, "the command has more than %d words", NBD_MAX_WORDS);
        words[(*count)++] = letters;
        if (!take_word(&text, &letters))
            return imgtk_fail(err, IMGTK_EINVAL, "a quote in the command is not closed");
    }
    if (*count < 3 || strcmp(words[0], "[") != 0 || strcmp(words[*count - 1], "]") != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "a command stands between '[' and ']', as words of their own");
    return 0;
}

int nbd_command_split(const char *text, char ***out, struct imgtk_error *err)
{
    size_t count;
    char **words = calloc(1, (NBD_MAX_WORDS + 1) * sizeof(*words) + strlen(text) + 2);
    if (!words)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = split(text, words, &count, (char *)(words + NBD_MAX_WORDS + 1), err);
    if (status) {
        free(words);
        return status;
    }
    memmove(words, words + 1, (count - 2) * sizeof(*words));
    words[count - 2] = NULL;
    *out = words;
    return 0;
}
