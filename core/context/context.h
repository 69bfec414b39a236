/* What a context holds. Internal to core. */
#ifndef IMGTK_CORE_CONTEXT_CONTEXT_H
#define IMGTK_CORE_CONTEXT_CONTEXT_H

#include "budget.h"
#include "config.h"
#include "imgtk/image.h"

struct registry;

struct imgtk_context {
    struct config config; /* its policies and budgets are those in force */
    struct output_meter output;
    struct imgtk_storage **spools; /* in reserve */
    unsigned spool_count;
    unsigned spools_taken; /* by the thread that opens */
    struct registry *registry;
    void (*note)(void *context, const char *message);
    void *note_context;
    const struct imgtk_cancel *cancel; /* may be NULL */
    char *storage_options;      /* of all storage modules; may be NULL */
};

/* Those that this process may use, at least one. */
unsigned context_cpus(void);
/* How many threads a job should have: the context's number, and more of them where requests have a long way. */
unsigned context_workers(const struct imgtk_context *context, bool remote);
/* A line for -v; cheap when nobody listens. */
void context_note(struct imgtk_context *context, const char *format, ...) IMGTK_PRINTF(2, 3);

/* How a new file is opened: O_RDWR, or O_WRONLY where the process may not be allowed to read in the target's folder. */
int context_new_file_access(const struct imgtk_context *context);
/* A temporary file: one of those in reserve, while there are any. */
int context_spool(struct imgtk_context *context, struct imgtk_storage **out, struct imgtk_error *err);
void context_free_spools(struct imgtk_context *context);

/* The storage module whose scheme begins `name`, loaded; *out NULL when `name` has no scheme that a module claims. */
int registry_storage_for(struct imgtk_context *context, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err);

/* Whether any storage module has an option of that name; loads all of them. */
bool registry_storage_has_option(struct imgtk_context *context, const char *option);
/* The storage module that names beginning like this one lead to, whether it is there or not; NULL: not a known kind. */
const char *registry_storage_module(const char *name);

#endif
