/*
 * What all pictures have in common: cells in rows, read like text, and in each cell a stack of what it holds, of
 * STACK_FULL steps when nothing is missing.
 */
#ifndef IMGTK_CLI_LAYOUT_H
#define IMGTK_CLI_LAYOUT_H

#include "palette.h"

#define STACK_FULL 8u
#define SERIES_MAX PALETTE_LAYERS

/* One way to look at a disk. */
struct series {
    const char *name;         /* "kind": the id of its map */
    const struct look *looks; /* of each thing that is stacked, from the bottom */
    size_t count;             /* of looks */
    /* How high each is in a cell: at least 1 where there is any of it, STACK_FULL in all at most. */
    void (*stack)(const struct cells *cells, size_t index, unsigned heights[SERIES_MAX]);
};
/* Kinds; kinds where holes are told from what did not change; layers. */
extern const struct series series_kinds, series_differences, series_layers;

/* Which of a stack is the highest, SERIES_MAX where there is nothing; *total (may be NULL) is the whole height. */
size_t stack_top(const struct series *series, const struct cells *cells, size_t index, unsigned *total);

/* The height of one look in a row of cells: `length` cells from `first` on are alike. `below` is what it stands on. */
struct run {
    size_t first, length;
    unsigned below, height;
};
/* The next run of series->looks[which] at or behind *at and before `end`; false: there is none. *at moves behind it. */
bool layout_next_run(const struct series *series, const struct cells *cells, size_t which, size_t *at, size_t end,
                     struct run *out);

size_t layout_rows(const struct cells *cells, size_t columns);
/* How many rows stand between two offsets of the axis. */
size_t layout_axis_step(size_t rows);

/* "1.5 GiB" without losing a digit of offsets on an axis. */
#define AXIS_TEXT 32
void layout_format_offset(uint64_t offset, char out[AXIS_TEXT]);
/* "12.3%", "<0.1%" for a little, "0%" for nothing. */
#define SHARE_TEXT 16
void layout_format_share(uint64_t part, uint64_t whole, char out[SHARE_TEXT]);

#endif
