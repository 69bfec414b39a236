/* How each kind and each layer looks: colours that the colour-blind can tell apart, on light and on dark ground. */
#ifndef IMGTK_CLI_PALETTE_H
#define IMGTK_CLI_PALETTE_H

#include <stddef.h>
#include <stdio.h>

#include "cells.h"

struct look {
    const char *name;      /* also the class in a picture */
    const char *meaning;   /* of a kind, in a few words */
    const char *light, *dark; /* colours on that ground */
    unsigned char terminal;   /* of 256 colours */
    char letter;              /* where there are no colours */
};

/* CELL_KINDS kinds, and behind them what an image has in common with the one that it is compared with. */
#define PALETTE_SAME CELL_KINDS
extern const struct look palette_kinds[CELL_KINDS + 1];

/* Layers by depth; the last look is for all that are deeper. */
#define PALETTE_LAYERS 8u
extern const struct look palette_layers[PALETTE_LAYERS];
static inline size_t palette_layer(size_t depth)
{
    return depth < PALETTE_LAYERS ? depth : PALETTE_LAYERS - 1;
}

/* The rules of a style sheet: `fill` of every class, and those of paper, text and lines, in light and in dark. */
void palette_put_css(FILE *to);

#endif
