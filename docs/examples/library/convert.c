/*
 * convert FROM TO FORMAT [PERCENT]: writes the disk of FROM into the new image TO, tells how far it is, and gives up when
 * PERCENT is reached: then there is no TO, or the one that was there before.
 */
#include <imgtk/jobs.h>
#include <stdio.h>
#include <stdlib.h>

struct report {
    int shown, last; /* percent */
};

/* Called by one thread at a time, though not always by the same one. */
static int progress(void *context, const struct imgtk_progress *now)
{
    struct report *report = context;
    int percent = now->total ? (int)((double)now->done * 100 / (double)now->total) : 100;
    if (percent > report->shown) {
        report->shown = percent;
        printf("%s: %d %%\n", now->phase, percent);
    }
    return percent >= report->last; /* not 0: stop */
}

static int convert(struct imgtk_context *context, char **words, struct report *report, struct imgtk_error *err)
{
    struct imgtk_image *image;
    int status = imgtk_image_open(context, words[1], NULL, &image, err);
    if (status)
        return status;
    const struct imgtk_convert job = {
        .sources = &image,
        .source_count = 1,
        .target = { .name = words[2], .format = words[3] },
        .sparse_size = IMGTK_SPARSE_DEFAULT,
        .progress = progress,
        .progress_context = report,
    };
    status = imgtk_convert(context, &job, err);
    imgtk_image_close(image);
    return status;
}

int main(int count, char **words)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_context *context = NULL;
    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: convert FROM TO FORMAT [PERCENT]\n");
        return 2;
    }
    struct report report = { .shown = -1, .last = count == 5 ? atoi(words[4]) : 101 };
    int status = imgtk_context_new(&context, &err);
    if (!status)
        status = convert(context, words, &report, &err);
    if (status)
        fprintf(stderr, "convert: %s\n", status == IMGTK_ECANCELLED ? "given up" : err.message);
    imgtk_context_free(context);
    return status ? 1 : 0;
}
