/* Options of which several tables take a part each. Internal to core. */
#ifndef IMGTK_CORE_OPTS_SHARED_H
#define IMGTK_CORE_OPTS_SHARED_H

#include "imgtk/opts.h"

/* As imgtk_opts_parse(), but an option that the table lacks is passed over where is_foreign (may be NULL) says so. */
int opts_parse_shared(struct imgtk_opts *opts, const char *what, const char *text,
                      bool (*is_foreign)(void *context, const char *name), void *context, struct imgtk_error *err);

#endif
