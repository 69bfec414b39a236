/*
 * A disk cut into cells of equal size, each of which knows how much of it is what. The number of cells is bounded,
 * however many extents there are, and adding an extent costs the cells that it covers.
 */
#ifndef IMGTK_CLI_CELLS_H
#define IMGTK_CLI_CELLS_H

#include <imgtk/image.h>

#define CELL_SIZE_MIN 512u

enum cell_kind {
    CELL_DATA,
    CELL_COMPRESSED,
    CELL_ZERO,       /* some layer says: zeroes */
    CELL_HOLE,       /* no layer holds anything */
    CELL_KINDS
};

struct cell {
    uint64_t bytes[CELL_KINDS]; /* what is left of the cell was not told of: it is as in the image compared with */
    uint64_t layer_bytes;       /* that `layer` decides; holes are nobody's */
    size_t layer;               /* which decides the most of the cell */
};

struct cells {
    uint64_t start, length;
    uint64_t cell_size;         /* a power of two; the last cell may be shorter */
    size_t count;
    struct cell *cells;
    uint64_t kinds[CELL_KINDS];         /* in all */
    uint64_t layers[IMGTK_MAX_CHAIN];   /* the same */
    size_t open;                        /* the cell that is being filled, of which is known: */
    uint64_t open_layers[IMGTK_MAX_CHAIN];
    size_t open_depth;                  /* layers behind it have nothing in this cell */
};

/* The smallest power of two, not below CELL_SIZE_MIN, that cuts `length` bytes into at most `limit` (> 0) cells. */
uint64_t cell_size_for(uint64_t length, size_t limit);
int cells_init(struct cells *cells, uint64_t start, uint64_t length, size_t limit, struct imgtk_error *err);
/* Extents come in order, each within the range. `layer` of a hole does not matter. */
void cells_add(struct cells *cells, uint64_t start, uint64_t length, enum cell_kind kind, size_t layer);
/* After the last extent. */
void cells_finish(struct cells *cells);
void cells_free(struct cells *cells);

uint64_t cell_length(const struct cells *cells, size_t index);
/* Bytes of the cell, or of everything, that no extent told of. */
uint64_t cell_rest(const struct cells *cells, size_t index);
uint64_t cells_rest(const struct cells *cells);

#endif
