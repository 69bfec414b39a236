/* What a context holds. Internal to core. */
#ifndef IMGTK_CORE_CONTEXT_H
#define IMGTK_CORE_CONTEXT_H

#include "config.h"
#include "imgtk/image.h"

struct registry;

struct imgtk_context {
    struct config config; /* references and allow_dirs are the policy in force */
    struct registry *registry;
    void (*note)(void *context, const char *message);
    void *note_context;
    const volatile int *cancel; /* may be NULL */
    char *storage_options;      /* of all storage modules; may be NULL */
};

/* A line for -v; cheap when nobody listens. */
void context_note(struct imgtk_context *context, const char *format, ...) IMGTK_PRINTF(2, 3);

/* The storage module whose scheme begins `name`, loaded; *out NULL when `name` has no scheme that a module claims. */
int registry_storage_for(struct imgtk_context *context, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err);

/* Whether any storage module has an option of that name; loads all of them. */
bool registry_storage_has_option(struct imgtk_context *context, const char *option);
/* The storage module that names beginning like this one lead to, whether it is there or not; NULL: not a known kind. */
const char *registry_storage_module(const char *name);

#endif
