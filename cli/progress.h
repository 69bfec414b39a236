/* Drawing a job's progress: a bar, qemu-img's line, or rows for a program. */
#ifndef IMGTK_CLI_PROGRESS_H
#define IMGTK_CLI_PROGRESS_H

#include <imgtk/jobs.h>
#include <stdio.h>
#include <time.h>

#include "cli.h"

struct progress_options {
    bool show;          /* -p */
    const char *fd;     /* --progress=FD: "" is -p, NULL: not given */
    const char *format; /* --progress-format; NULL: plain */
};

enum progress_mode { PROGRESS_SILENT, PROGRESS_BAR, PROGRESS_LINE, PROGRESS_PLAIN, PROGRESS_JSONL };

struct progress {
    enum progress_mode mode;
    FILE *to;              /* BAR, LINE */
    int fd;                /* PLAIN, JSONL */
    struct timespec begun, shown;
    double shown_percent;
    struct imgtk_progress last;
};

/* stdout_is_data: the image goes there, so that progress goes to stderr. Not 0: the mistake is printed. */
int progress_start(struct cli *cli, const struct progress_options *options, bool stdout_is_data,
                   struct progress *progress);
/* An imgtk_progress_fn; its context is the struct progress. */
int progress_update(void *context, const struct imgtk_progress *now);
void progress_finish(struct progress *progress, bool success);

#endif
