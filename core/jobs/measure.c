#include <string.h>

#include "chain/reference.h"
#include "context/context.h"
#include "convert/target.h"
#include "plan.h"

static void ignore_note(void *context, const char *message)
{
    (void)context;
    (void)message;
}

static int ask_driver(struct imgtk_context *context, const struct imgtk_measure_job *job,
                      const struct imgtk_driver *driver, struct imgtk_create *args, struct imgtk_measure *out,
                      struct imgtk_error *err)
{
    struct imgtk_opts *opts = NULL;
    int status = target_options(context, driver, job->target.format_opts, &opts, err);
    args->opts = opts;
    if (!status)
        status = references_new(context, job->target.name ? job->target.name : "image", true, &args->refs, err);
    if (!status)
        status = driver->measure(args, out, err);
    if (args->flags & IMGTK_CREATE_COMPRESS) /* what data compress to is not known before it is done */
        out->file_size_known = false;
    references_free(args->refs);
    imgtk_opts_free(opts);
    return status;
}

int imgtk_measure_target(struct imgtk_context *context, const struct imgtk_measure_job *job, struct imgtk_measure *out,
                         struct imgtk_error *err)
{
    const struct imgtk_driver *driver;
    struct source source = { .size = job->size };
    struct imgtk_plan plan = { .source = NULL };
    struct plan_options options = { .write_all = false };
    struct imgtk_create args = { .workers = 1, .note = ignore_note,
                                 .flags = job->target.compress ? IMGTK_CREATE_COMPRESS : 0u };
    memset(out, 0, sizeof(*out));
    int status = imgtk_driver_find(context, job->target.format ? job->target.format : "raw", &driver, err);
    if (!status && job->source_count > 0)
        status = source_init(&source, job->sources, job->source_count, err);
    if (!status && job->source_count > 0)
        status = plan_init(&plan, &source, &options, err);
    args.size = source.size;
    args.plan = plan.source ? &plan : NULL;
    if (!plan.source)
        args.flags |= IMGTK_CREATE_EMPTY;
    if (!status)
        status = ask_driver(context, job, driver, &args, out, err);
    if (plan.source)
        plan_destroy(&plan);
    return status;
}
