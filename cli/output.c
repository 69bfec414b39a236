#include "output.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "picture/text.h"
#include "signals.h"

#define MAX_WORKERS 64

static void clean(char *text)
{
    char *to = text;
    for (const char *at = text; *at;) {
        const char *from = at;
        if (text_pass(&at))
            while (from < at)
                *to++ = *from++;
        else
            *to++ = '?';
    }
    *to = '\0';
}

bool cli_shows_colors(FILE *to)
{
    const char *forbidden = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(to)) && !(forbidden && *forbidden) && terminal && strcmp(terminal, "dumb") != 0;
}

size_t cli_terminal_width(FILE *to, size_t otherwise)
{
    const char *text = getenv("COLUMNS");
    struct winsize size;
    unsigned long columns = text ? strtoul(text, NULL, 10) : 0;
    if (columns > 0)
        return columns;
    if (ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return otherwise;
}

#define RED "\033[1;31m"
#define DIM "\033[2m"

/* color: of the program's name */
static void print_message(const struct cli *cli, const char *color, const char *format, va_list args)
    IMGTK_PRINTF(3, 0);
static void print_message(const struct cli *cli, const char *color, const char *format, va_list args)
{
    char line[2 * IMGTK_MESSAGE_SIZE];
    vsnprintf(line, sizeof line, format, args);
    imgtk_hide_credentials(line);
    clean(line);
    fflush(stdout);
    if (cli_shows_colors(stderr))
        fprintf(stderr, "%s%s:\033[0m %s\n", color, cli->program, line);
    else
        fprintf(stderr, "%s: %s\n", cli->program, line);
}

int cli_error(const struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(cli, RED, format, args);
    va_end(args);
    return CLI_FAILED;
}

void cli_tell(const struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(cli, DIM, format, args);
    va_end(args);
}

int cli_fail(const struct cli *cli, const char *prefix, const struct imgtk_error *err)
{
    int number = imgtk_cancel_reason(signals_stop());
    if (err->status == IMGTK_ECANCELLED && number == SIGALRM)
        return cli_error(cli, "%s", signals_lateness());
    if (err->status == IMGTK_ECANCELLED && number != 0)
        return cli_error(cli, "interrupted by SIG%s", sigabbrev_np(number));
    if (prefix)
        return cli_error(cli, "%s: %s", prefix, err->message);
    return cli_error(cli, "%s", err->message);
}

void cli_note(const struct cli *cli, const char *format, ...)
{
    va_list args;
    if (!cli->verbose)
        return;
    va_start(args, format);
    print_message(cli, DIM, format, args);
    va_end(args);
}

void cli_put_text(FILE *to, const char *text)
{
    while (*text) {
        const char *from = text;
        if (text_pass(&text))
            fwrite(from, 1, (size_t)(text - from), to);
        else
            putc('?', to);
    }
}

void cli_print_text(const char *text)
{
    cli_put_text(stdout, text);
}

int cli_finish_output(const struct cli *cli, int exit_code)
{
    bool earlier = ferror(stdout) != 0;
    if (fflush(stdout) != 0)
        cli_error(cli, "cannot write the output: %s", strerror(errno));
    else if (earlier) /* and why is no longer known */
        cli_error(cli, "cannot write the output");
    else
        return exit_code;
    return exit_code == CLI_OK ? cli->failure : exit_code;
}

void cli_format_size(uint64_t bytes, char out[CLI_SIZE_TEXT])
{
    static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1000; unit++)
        value /= 1024;
    snprintf(out, CLI_SIZE_TEXT, "%.3g %sB", value, units[unit]);
}

/* "00" to "99" */
static const char digit_pairs[201] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

char *cli_put_u64(char *out, uint64_t value)
{
    char digits[20];
    char *at = digits + sizeof digits;
    for (; value >= 100; value /= 100)
        memcpy(at -= 2, digit_pairs + value % 100 * 2, 2);
    if (value >= 10)
        memcpy(at -= 2, digit_pairs + value * 2, 2);
    else
        *--at = (char)('0' + value);
    size_t length = (size_t)(digits + sizeof digits - at);
    memcpy(out, at, length);
    return out + length;
}

char *cli_put_hex(char *out, uint64_t value, size_t width)
{
    char digits[18];
    char *at = digits + sizeof digits;
    bool zero = value == 0;
    do {
        *--at = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value > 0);
    if (!zero)
        memcpy(at -= 2, "0x", 2);
    size_t length = (size_t)(digits + sizeof digits - at);
    memcpy(out, at, length);
    if (length < width)
        memset(out + length, ' ', width - length);
    return out + (length < width ? width : length);
}

int cli_parse_output(const struct cli *cli, const char *text, enum cli_output *out)
{
    if (!text || strcmp(text, "human") == 0)
        *out = CLI_OUTPUT_HUMAN;
    else if (strcmp(text, "json") == 0)
        *out = CLI_OUTPUT_JSON;
    else
        return cli_error(cli, "--output must be used with human or json as argument, not '%s'", text);
    return 0;
}

int cli_parse_workers(const struct cli *cli, const char *text, unsigned *out)
{
    uint64_t workers;
    *out = 0;
    if (!text)
        return 0;
    if (imgtk_parse_size(text, &workers, NULL) || workers == 0 || workers > MAX_WORKERS)
        return cli_error(cli, "Invalid number of workers '%s'. The allowed number is between 1 and %d", text,
                         MAX_WORKERS);
    *out = (unsigned)workers;
    return 0;
}
