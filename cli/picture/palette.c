#include "palette.h"

const struct look palette_kinds[CELL_KINDS + 1] = {
    [CELL_DATA] = { "data", "stored as it is", "#0072b2", "#4aa8e8", 32, '#' },
    [CELL_COMPRESSED] = { "compressed", "stored compressed", "#e69f00", "#f0b429", 214, 'c' },
    [CELL_ZERO] = { "zero", "recorded as zeroes", "#9aa3ad", "#727c86", 247, '0' },
    [CELL_HOLE] = { "hole", "nothing is stored", "#e3e6ea", "#2c333c", 240, '.' },
    [PALETTE_SAME] = { "same", "not different", "#f8f9fa", "#171c22", 236, '-' },
};

const struct look palette_layers[PALETTE_LAYERS] = {
    { "layer0", "", "#1f7a6c", "#2f9c8a", 36, '0' },  { "layer1", "", "#e894a1", "#f5b5be", 174, '1' },
    { "layer2", "", "#7f7f1e", "#97973a", 100, '2' }, { "layer3", "", "#aa4499", "#c25ab0", 133, '3' },
    { "layer4", "", "#5fb3dc", "#88ccee", 117, '4' }, { "layer5", "", "#d9c66e", "#e8da8f", 186, '5' },
    { "layer6", "", "#7f1d50", "#8f2f62", 89, '6' },  { "layer7", "", "#16191d", "#f4f6f8", 245, '+' },
};

static const struct look ground[] = {
    { .name = "paper", .light = "#ffffff", .dark = "#12161b" },
    { .name = "ink", .light = "#1b1f24", .dark = "#e6e9ec" },
    { .name = "faint", .light = "#59636e", .dark = "#9aa4ae" },
    { .name = "part0", .light = "#7d8792", .dark = "#7d8792" },
    { .name = "part1", .light = "#c5ccd3", .dark = "#434b54" },
};

static void put_rules(FILE *to, const struct look *looks, size_t count, int dark)
{
    for (size_t i = 0; i < count; i++)
        fprintf(to, ".%s{fill:%s}\n", looks[i].name, dark ? looks[i].dark : looks[i].light);
}

static void put_all(FILE *to, int dark)
{
    put_rules(to, ground, sizeof ground / sizeof ground[0], dark);
    put_rules(to, palette_kinds, CELL_KINDS + 1, dark);
    put_rules(to, palette_layers, PALETTE_LAYERS, dark);
}

void palette_put_css(FILE *to)
{
    put_all(to, 0);
    fputs("@media (prefers-color-scheme:dark){\n", to);
    put_all(to, 1);
    fputs("}\n", to);
}
