/* A picture as text: rows of characters. On a terminal their colours tell what is there and their heights how much;
   elsewhere they are letters, and nothing but ASCII where the locale has no UTF-8. */
#include <imgtk/bytes.h>
#include <stdlib.h>
#include <string.h>

#include "../output.h"
#include "picture.h"
#include "text.h"

#define ROWS 16u
#define AXIS_WIDTH 12
#define COLUMNS_MIN 16u
#define COLUMNS_MAX 256u
#define TERMINAL_DEFAULT 80u
#define NAME_LIMIT 60u

/* ---- The terminal --------------------------------------------------------- */

/* A power of two, so that rows begin at round offsets. */
static size_t columns_for(FILE *to)
{
    size_t width = cli_terminal_width(to, TERMINAL_DEFAULT), columns = COLUMNS_MIN;
    while (columns < COLUMNS_MAX && columns * 2 + AXIS_WIDTH <= width)
        columns *= 2;
    return columns;
}

static size_t cell_limit(FILE *to)
{
    return columns_for(to) * ROWS;
}

/* Told from the names alone: a program that is confined to its images cannot read the locale's files. */
static bool in_utf8(void)
{
    static const char *const variables[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    const char *name = NULL;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0] && !(name && *name); i++)
        name = getenv(variables[i]);
    return name && (strcasestr(name, "UTF-8") || strcasestr(name, "UTF8"));
}

struct pen {
    FILE *to;
    size_t columns;
    bool colour;
    bool blocks;    /* heights can be drawn */
    unsigned char now; /* the colour that is set; 0: none */
};

static void set_colour(struct pen *pen, unsigned char colour)
{
    if (!pen->colour || pen->now == colour)
        return;
    if (colour)
        fprintf(pen->to, "\033[38;5;%um", colour);
    else
        fputs("\033[m", pen->to);
    pen->now = colour;
}

/* ---- The block ------------------------------------------------------------ */

static void put_nothing(struct pen *pen, const struct look *look)
{
    set_colour(pen, look->terminal);
    fputs(pen->blocks ? "\u00b7" : (const char[]){ look->letter, '\0' }, pen->to);
}

static void put_look(struct pen *pen, const struct look *look, unsigned height)
{
    static const char *const blocks[STACK_FULL] = { "\u2581", "\u2582", "\u2583", "\u2584",
                                                    "\u2585", "\u2586", "\u2587", "\u2588" };
    set_colour(pen, look->terminal);
    if (pen->blocks)
        fputs(blocks[height - 1], pen->to);
    else
        putc(look->letter, pen->to);
}

static void put_cell(struct pen *pen, const struct picture *picture, const struct series *series, size_t index)
{
    unsigned height;
    size_t top = stack_top(series, &picture->cells, index, &height);
    if (top < SERIES_MAX)
        put_look(pen, &series->looks[top], height);
    else
        put_nothing(pen, &palette_kinds[picture->map->relative_to ? PALETTE_SAME : (size_t)CELL_HOLE]);
}

/* "^1 ^2" below the cells in which partitions begin; those that there is no room for are left out. */
static void put_marks(struct pen *pen, const struct picture *picture, size_t row)
{
    const struct partition_table *table = &picture->partitions;
    size_t column = 0;
    for (size_t i = 0; i < table->count; i++) {
        uint64_t from, end;
        char mark[16];
        if (!picture_clip(picture, &table->partitions[i], &from, &end))
            continue;
        size_t at = (size_t)(from / picture->cells.cell_size);
        if (at / pen->columns != row || (column > 0 && at % pen->columns < column + 1))
            continue;
        if (column == 0)
            fprintf(pen->to, "%*s", AXIS_WIDTH, "");
        int length = snprintf(mark, sizeof mark, "^%u", table->partitions[i].number);
        fprintf(pen->to, "%*s%s", (int)(at % pen->columns - column), "", mark);
        column = at % pen->columns + (size_t)length;
    }
    if (column > 0)
        putc('\n', pen->to);
}

static void put_block(struct pen *pen, const struct picture *picture, const struct series *series)
{
    const struct cells *cells = &picture->cells;
    for (size_t row = 0; row < layout_rows(cells, pen->columns); row++) {
        char offset[AXIS_TEXT];
        layout_format_offset(cells->start + row * pen->columns * cells->cell_size, offset);
        fprintf(pen->to, "%*s  ", AXIS_WIDTH - 2, offset);
        size_t end = (size_t)imgtk_min_u64((row + 1) * pen->columns, cells->count);
        for (size_t index = row * pen->columns; index < end; index++)
            put_cell(pen, picture, series, index);
        set_colour(pen, 0);
        putc('\n', pen->to);
        put_marks(pen, picture, row);
    }
}

/* ---- Legends -------------------------------------------------------------- */

static void put_sample(struct pen *pen, const struct look *look, bool nothing)
{
    fprintf(pen->to, "%*s", AXIS_WIDTH, "");
    if (nothing)
        put_nothing(pen, look);
    else
        put_look(pen, look, STACK_FULL);
    set_colour(pen, 0);
    putc(' ', pen->to);
}

static void put_amount(struct pen *pen, uint64_t bytes, uint64_t whole)
{
    char size[CLI_SIZE_TEXT], share[SHARE_TEXT];
    cli_format_size(bytes, size);
    layout_format_share(bytes, whole, share);
    fprintf(pen->to, "%10s %6s  ", size, share);
}

static void put_kinds(struct pen *pen, const struct picture *picture)
{
    const struct cells *cells = &picture->cells;
    size_t nothing = picture->map->relative_to ? PALETTE_SAME : (size_t)CELL_HOLE;
    for (size_t kind = 0; kind <= nothing; kind++) {
        put_sample(pen, &palette_kinds[kind], kind == nothing);
        fprintf(pen->to, "%-10s ", palette_kinds[kind].name);
        put_amount(pen, kind == PALETTE_SAME ? cells_rest(cells) : cells->kinds[kind], cells->length);
        fprintf(pen->to, "%s\n", palette_kinds[kind].meaning);
    }
}

static void put_layers(struct pen *pen, const struct picture *picture)
{
    fprintf(pen->to, "\n%*sThe layer that holds the most of it\n", AXIS_WIDTH, "");
    put_block(pen, picture, &series_layers);
    for (size_t depth = 0; depth < imgtk_image_depth(picture->map->image); depth++) {
        put_sample(pen, &palette_layers[palette_layer(depth)], false);
        fprintf(pen->to, "%-3zu ", depth);
        put_amount(pen, picture->cells.layers[depth], picture->cells.length);
        text_put(pen->to, picture_layer_name(picture, depth), NAME_LIMIT);
        putc('\n', pen->to);
    }
}

static void put_partitions(struct pen *pen, const struct picture *picture)
{
    if (picture->partitions.count > 0)
        putc('\n', pen->to);
    for (size_t i = 0; i < picture->partitions.count; i++) {
        const struct partition *partition = &picture->partitions.partitions[i];
        char offset[AXIS_TEXT], size[CLI_SIZE_TEXT];
        uint64_t from, end;
        if (!picture_clip(picture, partition, &from, &end))
            continue;
        layout_format_offset(partition->start, offset);
        cli_format_size(partition->length, size);
        fprintf(pen->to, "%*s  ^", AXIS_WIDTH - 2, offset);
        picture_put_partition(partition, pen->to, NAME_LIMIT, text_put);
        fprintf(pen->to, ", %s\n", size);
    }
}

static void draw(const struct picture *picture, FILE *to)
{
    struct pen pen = { .to = to, .columns = columns_for(to), .colour = cli_shows_colors(to) };
    char cell[AXIS_TEXT];
    pen.blocks = pen.colour && in_utf8();
    layout_format_offset(picture->cells.cell_size, cell);
    text_put(to, picture_title(picture), NAME_LIMIT);
    fputs(": ", to);
    picture_put_summary(picture, to, text_put);
    fprintf(to, "\n%*sA character is %s", AXIS_WIDTH, "", cell);
    fputs(pen.blocks ? "; its height tells how much of that is filled\n"
                     : " and tells what most of that is, holes aside\n", to);
    put_block(&pen, picture, picture_kinds(picture));
    put_kinds(&pen, picture);
    if (picture_has_layers(picture))
        put_layers(&pen, picture);
    put_partitions(&pen, picture);
}

const struct picture_form picture_form_bar = { cell_limit, 0, draw };
