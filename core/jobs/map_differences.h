/* A map of what differs from another image. Internal to core. */
#ifndef IMGTK_CORE_JOBS_MAP_DIFFERENCES_H
#define IMGTK_CORE_JOBS_MAP_DIFFERENCES_H

#include "imgtk/jobs.h"

/* imgtk_map() for a job with relative_to, whose start lies within the image. */
int map_differences(const struct imgtk_map *job, struct imgtk_error *err);

#endif
