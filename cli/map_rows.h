/* The forms in which a map is printed, row by row, without keeping it. */
#ifndef IMGTK_CLI_MAP_ROWS_H
#define IMGTK_CLI_MAP_ROWS_H

#include <imgtk/image.h>

#define MAP_BUFFER (256u << 10)
#define MAP_ROW_MAX 512 /* the longest row but for file names */

struct map_rows {
    struct imgtk_image *image;
    const struct map_form *form;
    uint64_t start;           /* where the map begins */
    uint64_t rows;
    bool differences; /* --relative-to: nothing to tell is an empty list */
    bool depths;      /* --allocation-depth: told with each row */
    unsigned cluster_bits;    /* intervals, clusters: of the layer */
    bool has_backing;         /* the same */
    bool open;                /* intervals: [first, last] is not printed yet */
    uint64_t first, last;
    size_t used;
    char buffer[MAP_BUFFER];
};

struct map_form {
    bool single_layer;
    bool in_clusters;
    void (*begin)(struct map_rows *rows);
    int (*row)(void *context, const struct imgtk_chain_extent *extent); /* of struct imgtk_map */
    void (*end)(struct map_rows *rows);
};

extern const struct map_form map_form_human, map_form_json, map_form_jsonl, map_form_intervals, map_form_clusters;

int map_rows_begin(struct map_rows *rows, uint64_t start, struct imgtk_error *err);
/* What was not printed yet; write errors stay with stdout. */
void map_rows_flush(struct map_rows *rows);

#endif
