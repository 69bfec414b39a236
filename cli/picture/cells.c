#include "cells.h"

#include <imgtk/bytes.h>
#include <stdlib.h>
#include <string.h>

uint64_t cell_size_for(uint64_t length, size_t limit)
{
    uint64_t size = CELL_SIZE_MIN;
    while (imgtk_div_round_up(length, size) > limit)
        size *= 2;
    return size;
}

int cells_init(struct cells *cells, uint64_t start, uint64_t length, size_t limit, struct imgtk_error *err)
{
    memset(cells, 0, sizeof *cells);
    cells->start = start;
    cells->length = length;
    cells->cell_size = cell_size_for(length, limit);
    cells->count = (size_t)imgtk_div_round_up(length, cells->cell_size);
    cells->cells = calloc(cells->count + 1, sizeof cells->cells[0]);
    return cells->cells ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

void cells_free(struct cells *cells)
{
    free(cells->cells);
    cells->cells = NULL;
}

static void close_cell(struct cells *cells)
{
    struct cell *cell = &cells->cells[cells->open];
    for (size_t layer = 0; layer < cells->open_depth; layer++) {
        if (cells->open_layers[layer] > cell->layer_bytes) {
            cell->layer_bytes = cells->open_layers[layer];
            cell->layer = layer;
        }
        cells->open_layers[layer] = 0;
    }
    cells->open_depth = 0;
}

static void add_to_cell(struct cells *cells, size_t index, uint64_t length, enum cell_kind kind, size_t layer)
{
    if (index != cells->open)
        close_cell(cells);
    cells->open = index;
    cells->cells[index].bytes[kind] += length;
    if (kind == CELL_HOLE)
        return;
    cells->open_layers[layer] += length;
    if (cells->open_depth <= layer)
        cells->open_depth = layer + 1;
}

void cells_add(struct cells *cells, uint64_t start, uint64_t length, enum cell_kind kind, size_t layer)
{
    uint64_t at = start - cells->start, end = at + length;
    cells->kinds[kind] += length;
    if (kind != CELL_HOLE)
        cells->layers[layer] += length;
    while (at < end) {
        uint64_t step = imgtk_min_u64(end - at, cells->cell_size - (at & (cells->cell_size - 1)));
        add_to_cell(cells, (size_t)(at / cells->cell_size), step, kind, layer);
        at += step;
    }
}

void cells_finish(struct cells *cells)
{
    close_cell(cells);
}

uint64_t cell_length(const struct cells *cells, size_t index)
{
    return imgtk_min_u64(cells->cell_size, cells->length - index * cells->cell_size);
}

static uint64_t rest_of(uint64_t length, const uint64_t bytes[CELL_KINDS])
{
    for (size_t kind = 0; kind < CELL_KINDS; kind++)
        length -= bytes[kind];
    return length;
}

uint64_t cell_rest(const struct cells *cells, size_t index)
{
    return rest_of(cell_length(cells, index), cells->cells[index].bytes);
}

uint64_t cells_rest(const struct cells *cells)
{
    return rest_of(cells->length, cells->kinds);
}
