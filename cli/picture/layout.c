#include "layout.h"

#include <imgtk/bytes.h>
#include <stdio.h>
#include <string.h>

/* ---- Stacks --------------------------------------------------------------- */

static unsigned height_of(uint64_t part, uint64_t whole)
{
    if (part == 0)
        return 0;
    unsigned height = (unsigned)((double)part / (double)whole * STACK_FULL + 0.5);
    return height > 0 ? height : 1;
}

/* What is little still shows, at the cost of what is most. */
static void fit(unsigned heights[SERIES_MAX], size_t count)
{
    for (;;) {
        unsigned total = 0;
        size_t highest = 0;
        for (size_t i = 0; i < count; i++) {
            total += heights[i];
            if (heights[i] > heights[highest])
                highest = i;
        }
        if (total <= STACK_FULL)
            return;
        heights[highest]--;
    }
}

static void stack_kinds(const struct cells *cells, size_t index, size_t count, unsigned heights[SERIES_MAX])
{
    for (size_t kind = 0; kind < count; kind++)
        heights[kind] = height_of(cells->cells[index].bytes[kind], cell_length(cells, index));
    fit(heights, count);
}

static void stack_without_holes(const struct cells *cells, size_t index, unsigned heights[SERIES_MAX])
{
    stack_kinds(cells, index, CELL_HOLE, heights);
}

static void stack_with_holes(const struct cells *cells, size_t index, unsigned heights[SERIES_MAX])
{
    stack_kinds(cells, index, CELL_KINDS, heights);
}

static void stack_layer(const struct cells *cells, size_t index, unsigned heights[SERIES_MAX])
{
    const struct cell *cell = &cells->cells[index];
    memset(heights, 0, SERIES_MAX * sizeof heights[0]);
    heights[palette_layer(cell->layer)] = height_of(cell->layer_bytes, cell_length(cells, index));
}

const struct series series_kinds = { "kinds", palette_kinds, CELL_HOLE, stack_without_holes };
const struct series series_differences = { "kinds", palette_kinds, CELL_KINDS, stack_with_holes };
const struct series series_layers = { "layers", palette_layers, PALETTE_LAYERS, stack_layer };

size_t stack_top(const struct series *series, const struct cells *cells, size_t index, unsigned *total)
{
    unsigned heights[SERIES_MAX];
    size_t top = 0;
    unsigned sum = 0;
    series->stack(cells, index, heights);
    for (size_t i = 0; i < series->count; i++) {
        sum += heights[i];
        if (heights[i] > heights[top])
            top = i;
    }
    if (total)
        *total = sum;
    return sum > 0 ? top : SERIES_MAX;
}

/* ---- Runs ----------------------------------------------------------------- */

static void look_at(const struct series *series, const struct cells *cells, size_t which, size_t index,
                    unsigned *below, unsigned *height)
{
    unsigned heights[SERIES_MAX];
    series->stack(cells, index, heights);
    *below = 0;
    for (size_t i = 0; i < which; i++)
        *below += heights[i];
    *height = heights[which];
}

bool layout_next_run(const struct series *series, const struct cells *cells, size_t which, size_t *at, size_t end,
                     struct run *out)
{
    out->height = 0;
    for (; *at < end; ++*at) {
        unsigned below, height;
        look_at(series, cells, which, *at, &below, &height);
        if (out->height > 0 && (below != out->below || height != out->height))
            break;
        if (out->height == 0 && height > 0)
            *out = (struct run){ .first = *at, .below = below, .height = height };
        if (height > 0)
            out->length = *at - out->first + 1;
    }
    return out->height > 0;
}

/* ---- Rows and the axis ---------------------------------------------------- */

size_t layout_rows(const struct cells *cells, size_t columns)
{
    return (size_t)imgtk_div_round_up(cells->count, columns);
}

size_t layout_axis_step(size_t rows)
{
    return rows <= 8 ? 1 : rows <= 16 ? 2 : 4;
}

void layout_format_offset(uint64_t offset, char out[AXIS_TEXT])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)offset;
    size_t unit = 0;
    for (; value >= 1024; unit++)
        value /= 1024;
    snprintf(out, AXIS_TEXT, "%.5g %s", value, units[unit]);
}

void layout_format_share(uint64_t part, uint64_t whole, char out[SHARE_TEXT])
{
    double percent = whole ? 100 * (double)part / (double)whole : 0;
    if (part > 0 && percent < 0.1)
        snprintf(out, SHARE_TEXT, "<0.1%%");
    else
        snprintf(out, SHARE_TEXT, "%.3g%%", percent);
}
