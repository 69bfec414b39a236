/* Drawing a job's progress: a bar, qemu-img's line, or rows for a program. */
#ifndef IMGTK_CLI_PROGRESS_H
#define IMGTK_CLI_PROGRESS_H

#include <imgtk/jobs.h>
#include <stdio.h>
#include <time.h>

#include "options.h"

struct progress_options {
    bool show;          /* -p */
    const char *fd;     /* --progress=FD: "" is -p, NULL: not given */
    const char *format; /* --progress-format; NULL: plain */
};

/* The rows of a command's table; `base`: offset of a struct progress_options in its values. */
#define PROGRESS_OPTIONS(base) \
    { 'p', NULL, CLI_FLAG, (base) + offsetof(struct progress_options, show), NULL, "show progress" }, \
    { '\0', "progress", CLI_OPTIONAL, (base) + offsetof(struct progress_options, fd), "FD", \
      "show progress, or write it to a file descriptor for a program" }, \
    { '\0', "progress-format", CLI_TEXT, (base) + offsetof(struct progress_options, format), "plain|jsonl", \
      "what a program gets: lines 'N/100' (the default), or JSON objects" }

enum progress_mode { PROGRESS_SILENT, PROGRESS_BAR, PROGRESS_LINE, PROGRESS_PLAIN, PROGRESS_JSONL };

struct progress {
    enum progress_mode mode;
    FILE *to;              /* BAR, LINE */
    int fd;                /* PLAIN, JSONL */
    struct timespec begun, shown;
    double shown_percent;
    struct imgtk_progress last;
};

/*
 * stdout_is_data: the image goes there, so that progress goes to stderr. -q leaves what a program gets. Not 0: the
 * mistake is printed.
 */
int progress_start(struct cli *cli, const struct progress_options *options, bool stdout_is_data,
                   struct progress *progress);
/* An imgtk_progress_fn; its context is the struct progress. */
int progress_update(void *context, const struct imgtk_progress *now);
void progress_finish(struct progress *progress, bool success);

#endif
