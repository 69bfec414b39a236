#include "context.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/registry.h"

#define REMOTE_WORKERS 8u

int imgtk_context_new(struct imgtk_context **out, struct imgtk_error *err)
{
    struct imgtk_context *context = calloc(1, sizeof(*context));
    if (!context)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = config_load(&context->config, err);
    context->output.limit = context->config.budget.output;
    if (!status)
        status = registry_new(&context->config, &context->registry, err);
    if (status) {
        imgtk_context_free(context);
        return status;
    }
    *out = context;
    return 0;
}

void imgtk_context_free(struct imgtk_context *context)
{
    if (!context)
        return;
    context_free_spools(context);
    registry_free(context->registry);
    config_free(&context->config);
    free(context->storage_options);
    free(context);
}

int imgtk_context_set_storage_options(struct imgtk_context *context, const char *text, struct imgtk_error *err)
{
    char *copy = strdup(text);
    if (!copy)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    free(context->storage_options);
    context->storage_options = copy;
    return 0;
}

int imgtk_reference_policy_parse(const char *text, enum imgtk_reference_policy *out, struct imgtk_error *err)
{
    static const char *const names[] = {
        [IMGTK_REFERENCES_BENEATH] = "beneath", [IMGTK_REFERENCES_ANY] = "any", [IMGTK_REFERENCES_NONE] = "none"
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum imgtk_reference_policy)i;
            return 0;
        }
    }
    return imgtk_fail(err, IMGTK_EINVAL, "must be beneath, any or none, not '%s'", text);
}

int imgtk_context_allow_dir(struct imgtk_context *context, const char *folder, struct imgtk_error *err)
{
    struct config *config = &context->config;
    char **dirs = realloc(config->allow_dirs, (config->allow_dir_count + 1) * sizeof(*dirs));
    if (!dirs)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    config->allow_dirs = dirs;
    dirs[config->allow_dir_count] = strdup(folder);
    if (!dirs[config->allow_dir_count])
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    config->allow_dir_count++;
    return 0;
}

void imgtk_context_set_note(struct imgtk_context *context, void (*note)(void *, const char *), void *note_context)
{
    context->note = note;
    context->note_context = note_context;
}

void imgtk_context_set_cancel(struct imgtk_context *context, const struct imgtk_cancel *cancel)
{
    context->cancel = cancel;
}

void context_note(struct imgtk_context *context, const char *format, ...)
{
    if (!context->note)
        return;
    char line[IMGTK_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    imgtk_hide_credentials(line);
    context->note(context->note_context, line);
}

unsigned context_cpus(void)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return 1;
    int count = CPU_COUNT(&cpus);
    return count > 0 ? (unsigned)count : 1;
}

unsigned imgtk_context_workers(const struct imgtk_context *context)
{
    return context->config.workers ? context->config.workers : context_cpus();
}

unsigned context_workers(const struct imgtk_context *context, bool remote)
{
    unsigned workers = imgtk_context_workers(context);
    return remote && workers < REMOTE_WORKERS ? REMOTE_WORKERS : workers;
}

const char *imgtk_context_format_options(const struct imgtk_context *context, const char *format)
{
    for (size_t i = 0; i < context->config.format_option_count; i++)
        if (strcmp(context->config.format_options[i].format, format) == 0)
            return context->config.format_options[i].options;
    return NULL;
}
