/* Finding, loading and judging modules. Internal to core. */
#ifndef IMGTK_CORE_MODULES_REGISTRY_H
#define IMGTK_CORE_MODULES_REGISTRY_H

#include "context/config.h"
#include "imgtk/image.h"

struct registry;

/* Collects the folders to search; loads nothing. `config` must outlive the registry. */
int registry_new(const struct config *config, struct registry **out, struct imgtk_error *err);
void registry_free(struct registry *registry);

/* As imgtk_modules(), without digests and the storage modules that are known to be none of a format. */
void registry_formats(struct imgtk_context *context, const struct imgtk_module **out, size_t *count);

/*
 * The name of the driver that an image means by the format that it records, which is of the driver and not of the image:
 * no text of an image says which file is loaded. IMGTK_ENOTFOUND as imgtk_driver_find().
 */
int registry_recorded_format(struct imgtk_context *context, const char *recorded, const char **out,
                             struct imgtk_error *err);

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
