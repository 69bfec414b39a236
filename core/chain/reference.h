/* The reference policy: the one place where a file that an image names is opened. Internal to core. */
#ifndef IMGTK_CORE_CHAIN_REFERENCE_H
#define IMGTK_CORE_CHAIN_REFERENCE_H

#include "context/budget.h"
#include "imgtk/image.h"

/* image_name: as the user or the layer above named it. forbidden: no reference may be followed, whatever the policy. */
int references_new(struct imgtk_context *context, const char *image_name, bool forbidden,
                   struct imgtk_references **out, struct imgtk_error *err);
/* Asked before imgtk_reference_create() makes anything; a status other than 0 refuses the path. */
typedef int (*references_guard_fn)(void *context, const char *path, struct imgtk_error *err);
void references_set_guard(struct imgtk_references *refs, references_guard_fn guard, void *context);
/* Counts what is read from the files that are opened from now on. `meter` outlives them. */
void references_set_meter(struct imgtk_references *refs, struct metadata_meter *meter);
/* Closes what imgtk_reference_create() made and references_commit() did not put in place. NULL is allowed. */
void references_free(struct imgtk_references *refs);
/* Whether imgtk_reference_create() made any. */
bool references_have_created(const struct imgtk_references *refs);
/* Brings every created file to the disk, with sync, and drops it from the page cache; none has its name yet. */
int references_settle(struct imgtk_references *refs, bool sync, struct imgtk_error *err);
/* Puts every created file in its place, in the order of creation. */
int references_commit(struct imgtk_references *refs, bool sync, struct imgtk_error *err);

#endif
