/* Finding, loading and judging modules. Internal to core. */
#ifndef IMGTK_CORE_REGISTRY_H
#define IMGTK_CORE_REGISTRY_H

#include "config.h"
#include "imgtk/image.h"

struct registry;

/* Collects the folders to search; loads nothing. `config` must outlive the registry. */
int registry_new(const struct config *config, struct registry **out, struct imgtk_error *err);
void registry_free(struct registry *registry);

/* As imgtk_modules(), without digests and the storage modules that are known to be none of a format. */
void registry_formats(struct imgtk_context *context, const struct imgtk_module **out, size_t *count);

/*
 * Copies a driver's table up to its own struct_size and fills optional ops with their defaults. A table that is too
 * small for the required ops, or lacks one, is IMGTK_EINVAL and the message names it.
 */
int driver_complete(const struct imgtk_driver *from, struct imgtk_driver *out, struct imgtk_error *err);

/* The same for a digest, whose members are all required. */
int digest_complete(const struct imgtk_digest *from, struct imgtk_digest *out, struct imgtk_error *err);

/*
 * The digest of that name, its module loaded alone; NULL: sha256. IMGTK_ENOTFOUND: there is none, or it cannot be used,
 * and the message says which there are.
 */
int registry_digest(struct imgtk_context *context, const char *name, const struct imgtk_digest **out,
                    struct imgtk_error *err);

/* The raw driver, which is part of core: without it nothing could be read. */
extern const struct imgtk_driver raw_driver;

#endif
