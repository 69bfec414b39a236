/* A picture as SVG: rows of cells with an axis on the left, partitions as ribbons under the rows and named on the
   right, legends with totals below. The page of picture_form_html draws the same and counts on the same measures. */
#include <imgtk/bytes.h>

#include "../output.h"
#include "picture.h"
#include "text.h"

#define COLUMNS 128u
#define ROWS 64u
#define CELL_WIDTH 6u
#define CELL_HEIGHT STACK_FULL
#define ROW_PITCH 12u
#define RIBBON_AT 9u      /* below the top of a row */
#define RIBBON_HEIGHT 2u
#define TICK_WIDTH 2u     /* and the least width of a ribbon */
#define TICK_HEIGHT (RIBBON_AT + RIBBON_HEIGHT)
#define MARGIN 24u
#define MAP_X 84u
#define MAP_WIDTH (COLUMNS * CELL_WIDTH)
#define LABEL_WIDTH 270u
#define LABEL_LIMIT 44u   /* characters of LABEL_WIDTH */
#define HEAD_HEIGHT 76u
#define LEGEND_ITEM 160u
#define LEGEND_HEIGHT 62u
#define LINE 20u
#define NAME_LIMIT 80u

size_t svg_cell_limit(FILE *to)
{
    (void)to;
    return (size_t)COLUMNS * ROWS;
}

/* ---- Cells ---------------------------------------------------------------- */

static void put_bar(FILE *to, size_t x, size_t bottom, size_t width, unsigned height)
{
    fprintf(to, "M%zu %zuh%zuv-%uh-%zuz", x, bottom, width, height, width);
}

static void put_ground(const struct picture *picture, FILE *to)
{
    const struct cells *cells = &picture->cells;
    size_t rows = layout_rows(cells, COLUMNS);
    const struct look *look = &palette_kinds[picture->map->relative_to ? PALETTE_SAME : (size_t)CELL_HOLE];
    fprintf(to, "<path class=\"%s\" d=\"", look->name);
    for (size_t row = 0; row < rows; row++) {
        size_t columns = (size_t)imgtk_min_u64(COLUMNS, cells->count - row * COLUMNS);
        put_bar(to, 0, row * ROW_PITCH + CELL_HEIGHT, columns * CELL_WIDTH, CELL_HEIGHT);
    }
    fputs("\"/>\n", to);
}

static void put_series_row(const struct picture *picture, const struct series *series, size_t which, size_t row,
                           FILE *to)
{
    size_t first = row * COLUMNS, at = first;
    size_t end = (size_t)imgtk_min_u64(first + COLUMNS, picture->cells.count);
    struct run run;
    while (layout_next_run(series, &picture->cells, which, &at, end, &run))
        put_bar(to, (run.first - first) * CELL_WIDTH, row * ROW_PITCH + CELL_HEIGHT - run.below,
                run.length * CELL_WIDTH, run.height);
}

static void put_series(const struct picture *picture, const struct series *series, FILE *to)
{
    for (size_t which = 0; which < series->count; which++) {
        fprintf(to, "<path class=\"%s\" d=\"", series->looks[which].name);
        for (size_t row = 0; row < layout_rows(&picture->cells, COLUMNS); row++)
            put_series_row(picture, series, which, row, to);
        fputs("\"/>\n", to);
    }
}

/* ---- Axis and partitions -------------------------------------------------- */

static void put_axis(const struct picture *picture, FILE *to)
{
    const struct cells *cells = &picture->cells;
    size_t rows = layout_rows(cells, COLUMNS), step = layout_axis_step(rows);
    for (size_t row = 0; row < rows; row += step) {
        char text[AXIS_TEXT];
        layout_format_offset(cells->start + row * COLUMNS * cells->cell_size, text);
        fprintf(to, "<text class=\"faint axis\" x=\"-8\" y=\"%zu\">%s</text>\n", row * ROW_PITCH + CELL_HEIGHT, text);
    }
}

/* How far along all rows an offset lies, in units of the picture. */
static uint64_t place_of(const struct cells *cells, uint64_t offset)
{
    return offset / cells->cell_size * CELL_WIDTH + offset % cells->cell_size * CELL_WIDTH / cells->cell_size;
}

static void put_ribbon(const struct cells *cells, uint64_t from, uint64_t to_offset, FILE *to)
{
    uint64_t at = place_of(cells, from), end = place_of(cells, to_offset);
    if (end < at + TICK_WIDTH)
        end = at + TICK_WIDTH;
    while (at < end) {
        uint64_t row = at / MAP_WIDTH, x = at % MAP_WIDTH, width = imgtk_min_u64(end - at, MAP_WIDTH - x);
        put_bar(to, (size_t)x, (size_t)(row * ROW_PITCH + RIBBON_AT + RIBBON_HEIGHT), (size_t)width, RIBBON_HEIGHT);
        at += width;
    }
}

/* Neighbours alternate between two tones. */
static void put_ribbons(const struct picture *picture, size_t tone, FILE *to)
{
    const struct partition_table *table = &picture->partitions;
    fprintf(to, "<path class=\"part%zu\" d=\"", tone);
    for (size_t i = tone; i < table->count; i += 2) {
        uint64_t from, end;
        if (picture_clip(picture, &table->partitions[i], &from, &end))
            put_ribbon(&picture->cells, from, end, to);
    }
    fputs("\"/>\n", to);
}

/* A tick through the row where a partition begins. */
static void put_ticks(const struct picture *picture, FILE *to)
{
    const struct partition_table *table = &picture->partitions;
    fputs("<path class=\"ink\" d=\"", to);
    for (size_t i = 0; i < table->count; i++) {
        uint64_t from, end;
        if (!picture_clip(picture, &table->partitions[i], &from, &end) ||
            table->partitions[i].start < picture->cells.start)
            continue;
        uint64_t at = place_of(&picture->cells, from);
        put_bar(to, (size_t)(at % MAP_WIDTH), (size_t)(at / MAP_WIDTH * ROW_PITCH + TICK_HEIGHT), TICK_WIDTH,
                TICK_HEIGHT);
    }
    fputs("\"/>\n", to);
}

/* Names stand beside the row in which their partition begins, as many as there is room for. */
static void put_labels(const struct picture *picture, FILE *to)
{
    const struct partition_table *table = &picture->partitions;
    size_t last_row = SIZE_MAX, room = 0;
    for (size_t i = 0; i < table->count; i++) {
        uint64_t from, end;
        if (!picture_clip(picture, &table->partitions[i], &from, &end))
            continue;
        size_t row = (size_t)(from / picture->cells.cell_size / COLUMNS);
        if (row != last_row) {
            fprintf(to, "%s<text class=\"ink label\" x=\"%u\" y=\"%zu\">", last_row == SIZE_MAX ? "" : "</text>\n",
                    MAP_WIDTH + 12, row * ROW_PITCH + CELL_HEIGHT);
            room = LABEL_LIMIT;
        } else if (room > 2) {
            fputs(", ", to);
            room -= 2;
        } else {
            continue;
        }
        last_row = row;
        room -= picture_put_partition(&table->partitions[i], to, room, text_put_xml);
    }
    if (last_row != SIZE_MAX)
        fputs("</text>\n", to);
}

static void put_map(const struct picture *picture, const struct series *series, size_t y, FILE *to)
{
    fprintf(to, "<g id=\"map-%s\" transform=\"translate(%u %zu)\">\n", series->name, MAP_X, y);
    put_ground(picture, to);
    put_series(picture, series, to);
    put_axis(picture, to);
    put_ribbons(picture, 0, to);
    put_ribbons(picture, 1, to);
    put_ticks(picture, to);
    put_labels(picture, to);
    fputs("</g>\n", to);
}

/* ---- Legends -------------------------------------------------------------- */

static void put_amount(uint64_t bytes, uint64_t whole, FILE *to)
{
    char size[CLI_SIZE_TEXT], share[SHARE_TEXT];
    cli_format_size(bytes, size);
    layout_format_share(bytes, whole, share);
    fprintf(to, "%s, ", size);
    text_put_xml(to, share, SHARE_TEXT);
}

static void put_kind(const struct picture *picture, size_t kind, size_t x, size_t y, FILE *to)
{
    const struct cells *cells = &picture->cells;
    const struct look *look = &palette_kinds[kind];
    fprintf(to, "<rect class=\"%s swatch\" x=\"%zu\" y=\"%zu\" width=\"12\" height=\"12\"/>"
            "<text class=\"ink\" x=\"%zu\" y=\"%zu\">%s</text>"
            "<text class=\"ink amount\" x=\"%zu\" y=\"%zu\">",
            look->name, x, y, x + 20, y + 11, look->name, x + 20, y + 28);
    put_amount(kind == PALETTE_SAME ? cells_rest(cells) : cells->kinds[kind], cells->length, to);
    fprintf(to, "</text><text class=\"faint\" x=\"%zu\" y=\"%zu\">%s</text>\n", x + 20, y + 44, look->meaning);
}

static size_t put_kind_legend(const struct picture *picture, size_t y, FILE *to)
{
    size_t count = picture->map->relative_to ? CELL_KINDS + 1 : CELL_KINDS;
    for (size_t kind = 0; kind < count; kind++)
        put_kind(picture, kind, MAP_X + kind * LEGEND_ITEM, y, to);
    return y + LEGEND_HEIGHT;
}

static uint64_t layer_bytes(const struct picture *picture, size_t look)
{
    uint64_t bytes = 0;
    for (size_t depth = look; depth < imgtk_image_depth(picture->map->image); depth++)
        if (palette_layer(depth) == look)
            bytes += picture->cells.layers[depth];
    return bytes;
}

static size_t put_layer_legend(const struct picture *picture, size_t y, FILE *to)
{
    size_t depth = imgtk_image_depth(picture->map->image);
    for (size_t look = 0; look < PALETTE_LAYERS && look < depth; look++, y += LINE) {
        fprintf(to, "<rect class=\"%s swatch\" x=\"%u\" y=\"%zu\" width=\"12\" height=\"12\"/>"
                "<text class=\"ink amount\" x=\"%u\" y=\"%zu\">",
                palette_layers[look].name, MAP_X, y, MAP_X + 20, y + 11);
        put_amount(layer_bytes(picture, look), picture->cells.length, to);
        fprintf(to, "</text><text class=\"ink\" x=\"%u\" y=\"%zu\">%zu: ", MAP_X + 20 + LEGEND_ITEM, y + 11, look);
        text_put_xml(to, picture_layer_name(picture, look), NAME_LIMIT);
        if (look + 1 == PALETTE_LAYERS && depth > PALETTE_LAYERS)
            fprintf(to, " and what is below it");
        fputs("</text>\n", to);
    }
    return y + LINE / 2;
}

/* ---- The whole ------------------------------------------------------------ */

struct measures {
    size_t width, height;
    size_t map_height;
};

static struct measures measure(const struct picture *picture)
{
    size_t depth = imgtk_image_depth(picture->map->image);
    struct measures all = { .map_height = layout_rows(&picture->cells, COLUMNS) * ROW_PITCH + LINE };
    all.width = MAP_X + MAP_WIDTH + (picture->partitions.count > 0 ? LABEL_WIDTH : MARGIN);
    all.height = HEAD_HEIGHT + all.map_height + LEGEND_HEIGHT + MARGIN + LINE;
    if (picture_has_layers(picture))
        all.height += LINE + all.map_height + imgtk_min_u64(depth, PALETTE_LAYERS) * LINE + LINE / 2;
    return all;
}

void svg_put_rules(FILE *to)
{
    fputs("text{font:12px system-ui,sans-serif}\n"
          ".head{font-size:18px;font-weight:600}\n"
          ".axis{font-size:10px;text-anchor:end}\n"
          ".label{font-size:10px}\n"
          ".amount{font-weight:600}\n"
          ".swatch{stroke:#808890;stroke-width:.5}\n", to);
    palette_put_css(to);
}

static void put_head(const struct picture *picture, FILE *to)
{
    fprintf(to, "<text class=\"ink head\" x=\"%u\" y=\"34\">", MARGIN);
    text_put_xml(to, picture_title(picture), NAME_LIMIT);
    fprintf(to, "</text>\n<text class=\"faint\" x=\"%u\" y=\"54\">", MARGIN);
    picture_put_summary(picture, to, text_put_xml);
    fputs("</text>\n", to);
}

static void put_scale(const struct picture *picture, size_t y, FILE *to)
{
    char row[AXIS_TEXT], cell[AXIS_TEXT];
    layout_format_offset(picture->cells.cell_size * COLUMNS, row);
    layout_format_offset(picture->cells.cell_size, cell);
    fprintf(to, "<text id=\"scale\" class=\"faint\" x=\"%u\" y=\"%zu\">A row is %s and a column in it %s; its height "
            "tells how much of that is filled.</text>\n", MAP_X, y, row, cell);
}

static void put_layers(const struct picture *picture, size_t y, size_t map_height, FILE *to)
{
    fprintf(to, "<text class=\"ink amount\" x=\"%u\" y=\"%zu\">The layer that holds the most of it</text>\n",
            MAP_X, y + 8);
    put_map(picture, &series_layers, y + LINE, to);
    put_layer_legend(picture, y + LINE + map_height, to);
}

void svg_put(const struct picture *picture, FILE *to, bool with_style)
{
    struct measures all = measure(picture);
    fprintf(to, "<svg id=\"picture\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %zu %zu\" width=\"%zu\" "
            "height=\"%zu\" role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">Map of ",
            all.width, all.height, all.width, all.height);
    text_put_xml(to, picture_title(picture), NAME_LIMIT);
    fputs("</title>\n", to);
    if (with_style) {
        fputs("<style>\n", to);
        svg_put_rules(to);
        fputs("</style>\n", to);
    }
    fputs("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n", to);
    put_head(picture, to);
    put_map(picture, picture_kinds(picture), HEAD_HEIGHT, to);
    size_t y = put_kind_legend(picture, HEAD_HEIGHT + all.map_height, to);
    put_scale(picture, y + LINE / 2, to);
    if (picture_has_layers(picture))
        put_layers(picture, y + LINE + MARGIN, all.map_height, to);
    fputs("</svg>\n", to);
}

void svg_put_measures(FILE *to)
{
    fprintf(to, "{\"columns\":%u,\"rows\":%u,\"width\":%u,\"height\":%u,\"pitch\":%u,\"ribbon\":%u,"
            "\"ribbonHeight\":%u,\"tick\":%u,\"labelLimit\":%u,\"layerLooks\":%u}",
            COLUMNS, ROWS, CELL_WIDTH, CELL_HEIGHT, ROW_PITCH, RIBBON_AT, RIBBON_HEIGHT, TICK_WIDTH, LABEL_LIMIT,
            PALETTE_LAYERS);
}

static void draw(const struct picture *picture, FILE *to)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", to);
    svg_put(picture, to, true);
}

const struct picture_form picture_form_svg = { svg_cell_limit, 0, draw };
