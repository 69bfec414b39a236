#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "output.h"
#include "signals.h"

#define BAR_INTERVAL 0.1   /* seconds between two drawings */
#define JSONL_INTERVAL 0.1
#define LINE_STEP 1.0      /* percent */

static double seconds_since(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static double percent_of(const struct imgtk_progress *progress)
{
    if (progress->done >= progress->total)
        return progress->total ? 100 : 0;
    return 100.0 * (double)progress->done / (double)progress->total;
}

/* ---- A bar on a terminal -------------------------------------------------- */

#define BAR_TEXT 48 /* columns that the bar leaves to numbers */
#define BAR_MAX 60

static size_t bar_width(FILE *to)
{
    struct winsize size;
    size_t columns = 80;
    if (ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    if (columns < BAR_TEXT + 10)
        return 0;
    return columns - BAR_TEXT > BAR_MAX ? BAR_MAX : columns - BAR_TEXT;
}

static void format_duration(double seconds, char out[24])
{
    unsigned long whole = seconds > 359999 ? 359999 : (unsigned long)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(out, 24, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(out, 24, "%lu:%02lu", whole / 60, whole % 60);
}

static void draw_bar(struct progress *progress, const char *ending)
{
    double elapsed = seconds_since(&progress->begun), percent = percent_of(&progress->last);
    size_t width = bar_width(progress->to), filled = (size_t)((double)width * percent / 100);
    char bar[BAR_MAX + 1], rate[CLI_SIZE_TEXT], left[24] = "", copied[CLI_SIZE_TEXT];
    memset(bar, '-', width);
    memset(bar, '#', filled);
    bar[width] = '\0';
    cli_format_size(elapsed > 0 ? (uint64_t)((double)progress->last.done / elapsed) : 0, rate);
    cli_format_size(progress->last.copied, copied);
    if (*ending)
        format_duration(elapsed, left);
    else if (progress->last.done > 0 && elapsed > 0.3)
        format_duration(elapsed * (100 - percent) / percent, left);
    fprintf(progress->to, "\r%5.1f%% %s%s%s%s/s, %s data%s%s%s\033[K%s", percent, width ? "[" : "", bar,
            width ? "] " : "", rate, copied, *left ? ", " : "", left,
            !*left ? "" : *ending ? " in all" : " left", ending);
    fflush(progress->to);
}

static void update_bar(struct progress *progress)
{
    if (seconds_since(&progress->shown) < BAR_INTERVAL)
        return;
    clock_gettime(CLOCK_MONOTONIC, &progress->shown);
    draw_bar(progress, "");
}

/* ---- qemu-img's line ------------------------------------------------------ */

static void print_line(FILE *to, double percent, const char *ending)
{
    fprintf(to, "    (%.2f/100%%)%s", percent, ending);
    fflush(to);
}

static void update_line(struct progress *progress)
{
    double percent = percent_of(&progress->last);
    if (percent - progress->shown_percent < LINE_STEP)
        return;
    progress->shown_percent = percent;
    print_line(progress->to, percent, "\r");
}

/* ---- Rows for a program --------------------------------------------------- */

/* A reader that went away is no reason to stop the job. */
static void write_row(int fd, const char *row, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, row, length);
        if (written < 0 && errno != EINTR)
            return;
        if (written > 0) {
            row += written;
            length -= (size_t)written;
        }
    }
}

static void write_plain(struct progress *progress)
{
    char row[32];
    int length = snprintf(row, sizeof row, "%d/100\n", (int)progress->shown_percent);
    write_row(progress->fd, row, (size_t)length);
}

static void update_plain(struct progress *progress)
{
    double percent = (int)percent_of(&progress->last);
    if (percent <= progress->shown_percent)
        return;
    progress->shown_percent = percent;
    write_plain(progress);
}

static void write_jsonl(struct progress *progress)
{
    char row[256];
    double elapsed = seconds_since(&progress->begun);
    double rate = elapsed > 0 ? (double)progress->last.copied / elapsed : 0;
    int length = snprintf(row, sizeof row, "{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu,\"copied\":%llu,"
                          "\"rate\":%.0f,\"elapsed\":%.3f}\n", progress->last.phase ? progress->last.phase : "copy",
                          (unsigned long long)progress->last.done, (unsigned long long)progress->last.total,
                          (unsigned long long)progress->last.copied, rate, elapsed);
    write_row(progress->fd, row, (size_t)length);
}

static void update_jsonl(struct progress *progress)
{
    if (seconds_since(&progress->shown) < JSONL_INTERVAL)
        return;
    clock_gettime(CLOCK_MONOTONIC, &progress->shown);
    write_jsonl(progress);
}

/* ---- All of them ---------------------------------------------------------- */

static int parse_fd(struct cli *cli, const char *text, int *fd)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*end || end == text || errno || value < 0 || value > 1 << 20)
        return cli_usage_error(cli, "--progress=%s: a file descriptor's number is expected", text);
    if (fcntl((int)value, F_GETFD) < 0)
        return cli_error(cli, "--progress=%s: %s", text, strerror(errno));
    *fd = (int)value;
    return 0;
}

static int choose_mode(struct cli *cli, const struct progress_options *options, struct progress *progress)
{
    bool jsonl = options->format && strcmp(options->format, "jsonl") == 0;
    if (options->format && !jsonl && strcmp(options->format, "plain") != 0)
        return cli_usage_error(cli, "--progress-format must be plain or jsonl, not '%s'", options->format);
    if (options->fd && *options->fd) {
        progress->mode = jsonl ? PROGRESS_JSONL : PROGRESS_PLAIN;
        return parse_fd(cli, options->fd, &progress->fd);
    }
    if (jsonl) {
        progress->mode = PROGRESS_JSONL;
        progress->fd = fileno(progress->to);
    } else if (!cli->quiet && (options->show || options->fd)) {
        progress->mode = isatty(fileno(progress->to)) ? PROGRESS_BAR : PROGRESS_LINE;
    }
    return 0;
}

int progress_start(struct cli *cli, const struct progress_options *options, bool stdout_is_data,
                   struct progress *progress)
{
    memset(progress, 0, sizeof *progress);
    progress->to = stdout_is_data ? stderr : stdout;
    int failed = choose_mode(cli, options, progress);
    if (failed)
        return failed;
    clock_gettime(CLOCK_MONOTONIC, &progress->begun);
    if (progress->mode == PROGRESS_LINE)
        print_line(progress->to, 0, "\r");
    else if (progress->mode == PROGRESS_PLAIN)
        write_plain(progress);
    return 0;
}

int progress_update(void *context, const struct imgtk_progress *now)
{
    struct progress *progress = context;
    progress->last = *now;
    if (signals_take_progress() && (progress->mode == PROGRESS_SILENT || progress->mode > PROGRESS_LINE))
        print_line(stderr, percent_of(now), "\n");
    switch (progress->mode) {
    case PROGRESS_SILENT:
        break;
    case PROGRESS_BAR:
        update_bar(progress);
        break;
    case PROGRESS_LINE:
        update_line(progress);
        break;
    case PROGRESS_PLAIN:
        update_plain(progress);
        break;
    case PROGRESS_JSONL:
        update_jsonl(progress);
        break;
    }
    return 0;
}

void progress_finish(struct progress *progress, bool success)
{
    if (success)
        progress->last.done = progress->last.total;
    switch (progress->mode) {
    case PROGRESS_SILENT:
        break;
    case PROGRESS_BAR:
        draw_bar(progress, "\n");
        break;
    case PROGRESS_LINE:
        if (success)
            print_line(progress->to, 100, "\r");
        fputc('\n', progress->to);
        break;
    case PROGRESS_PLAIN:
        update_plain(progress);
        break;
    case PROGRESS_JSONL:
        write_jsonl(progress);
        break;
    }
}
