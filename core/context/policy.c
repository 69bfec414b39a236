/* What a context believes of images, and what jobs may use up. */
#include <fcntl.h>
#include <stdlib.h>

#include "context.h"

void imgtk_context_set_references(struct imgtk_context *context, enum imgtk_reference_policy policy)
{
    context->config.references = policy;
}

enum imgtk_reference_policy imgtk_context_references(const struct imgtk_context *context)
{
    return context->config.trust == IMGTK_TRUSTED ? context->config.references : IMGTK_REFERENCES_NONE;
}

const char *imgtk_context_allowed_dir(const struct imgtk_context *context, size_t index)
{
    return index < context->config.allow_dir_count ? context->config.allow_dirs[index] : NULL;
}

void imgtk_context_set_trust(struct imgtk_context *context, enum imgtk_trust trust)
{
    context->config.trust = trust;
}

enum imgtk_trust imgtk_context_trust(const struct imgtk_context *context)
{
    return context->config.trust;
}

int context_new_file_access(const struct imgtk_context *context)
{
    return context->config.trust == IMGTK_TRUSTED ? O_RDWR : O_WRONLY;
}

void imgtk_context_set_budget(struct imgtk_context *context, const struct imgtk_budget *budget)
{
    context->config.budget = *budget;
    context->output.limit = budget->output;
}

const struct imgtk_budget *imgtk_context_budget(const struct imgtk_context *context)
{
    return &context->config.budget;
}

/* ---- Temporary files ------------------------------------------------------ */

int imgtk_context_reserve_spools(struct imgtk_context *context, unsigned count, struct imgtk_error *err)
{
    struct imgtk_storage **spools = realloc(context->spools, (context->spool_count + count) * sizeof(*spools));
    if (!spools)
        return count ? imgtk_fail(err, IMGTK_ENOMEM, "out of memory") : 0;
    context->spools = spools;
    int status = 0;
    for (; !status && count > 0; count--) {
        status = imgtk_storage_spool(&spools[context->spool_count], err);
        if (!status)
            context->spool_count++;
    }
    return status;
}

int context_spool(struct imgtk_context *context, struct imgtk_storage **out, struct imgtk_error *err)
{
    if (context->spools_taken == context->spool_count)
        return imgtk_storage_spool(out, err);
    *out = context->spools[context->spools_taken++];
    return 0;
}

void context_free_spools(struct imgtk_context *context)
{
    for (unsigned i = context->spools_taken; i < context->spool_count; i++)
        imgtk_storage_close(context->spools[i]);
    free(context->spools);
}
