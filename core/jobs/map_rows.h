/* The rows of a map: what is found piece by piece, neighbours that are alike as one. Internal to core. */
#ifndef IMGTK_CORE_JOBS_MAP_ROWS_H
#define IMGTK_CORE_JOBS_MAP_ROWS_H

#include "imgtk/jobs.h"

struct map_rows {
    const struct imgtk_map *job;
    struct imgtk_chain_extent row; /* not told yet; extent.length 0: none */
};

/* Pieces come in order; both calls fail with what the job's row() says. */
int map_rows_add(struct map_rows *rows, const struct imgtk_chain_extent *piece, struct imgtk_error *err);
/* Tells the last row. */
int map_rows_end(struct map_rows *rows, struct imgtk_error *err);

#endif
