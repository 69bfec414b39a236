/* A picture as one page that needs nothing else: the SVG, a table of the partitions, and a script that looks closer and
   tells about the cell that is pointed at. */
#include <imgtk/bytes.h>

#include "../output.h"
#include "page.h"
#include "picture.h"
#include "text.h"

#define DETAIL_CELLS 65536u /* for looking closer: the page has some hundred KiB for a disk in many pieces */
#define NAME_LIMIT 80u

/* ---- The data of the script ----------------------------------------------- */

static bool alike(const struct cell *a, const struct cell *b)
{
    for (size_t kind = 0; kind < CELL_KINDS; kind++)
        if (a->bytes[kind] != b->bytes[kind])
            return false;
    return a->layer == b->layer && a->layer_bytes == b->layer_bytes;
}

/* Holes are what is left, unless that is what is the same. */
static void put_cell(const struct picture *picture, const struct cell *cell, size_t count, FILE *to)
{
    fprintf(to, "%zu,%llu,%llu,%llu", count, (unsigned long long)cell->bytes[CELL_DATA],
            (unsigned long long)cell->bytes[CELL_COMPRESSED], (unsigned long long)cell->bytes[CELL_ZERO]);
    if (picture->map->relative_to)
        fprintf(to, ",%llu", (unsigned long long)cell->bytes[CELL_HOLE]);
    if (picture_has_layers(picture))
        fprintf(to, ",%zu,%llu", cell->layer, (unsigned long long)cell->layer_bytes);
}

static void put_cells(const struct picture *picture, FILE *to)
{
    const struct cells *cells = &picture->detail;
    fputs("\"cells\":[", to);
    for (size_t first = 0, next; first < cells->count; first = next) {
        for (next = first + 1; next < cells->count && alike(&cells->cells[first], &cells->cells[next]);)
            next++;
        if (first > 0)
            fputs(",\n", to);
        put_cell(picture, &cells->cells[first], next - first, to);
    }
    putc(']', to);
}

static size_t put_json_text(FILE *to, const char *text, size_t limit)
{
    (void)limit;
    text_put_json(to, text);
    return 0;
}

static void put_partitions(const struct picture *picture, FILE *to)
{
    fputs("\"partitions\":[", to);
    for (size_t i = 0; i < picture->partitions.count; i++) {
        const struct partition *partition = &picture->partitions.partitions[i];
        fprintf(to, "%s{\"start\":%llu,\"length\":%llu,\"label\":", i > 0 ? ",\n" : "",
                (unsigned long long)partition->start, (unsigned long long)partition->length);
        picture_put_partition(partition, to, SIZE_MAX, put_json_text);
        putc('}', to);
    }
    fputs("],\n", to);
}

static void put_layers(const struct picture *picture, FILE *to)
{
    fputs("\"layers\":[", to);
    for (size_t depth = 0; depth < imgtk_image_depth(picture->map->image); depth++) {
        if (depth > 0)
            putc(',', to);
        text_put_json(to, picture_layer_name(picture, depth));
    }
    fputs("],\n", to);
}

static void put_data(const struct picture *picture, FILE *to)
{
    const struct cells *cells = &picture->detail;
    fputs("<script type=\"application/json\" id=\"data\">\n{\"measures\":", to);
    svg_put_measures(to);
    fprintf(to, ",\n\"start\":%llu,\"length\":%llu,\"cell\":%llu,\"differences\":%s,\n",
            (unsigned long long)cells->start, (unsigned long long)cells->length,
            (unsigned long long)cells->cell_size, picture->map->relative_to ? "true" : "false");
    put_layers(picture, to);
    put_partitions(picture, to);
    put_cells(picture, to);
    fputs("}\n</script>\n", to);
}

/* ---- The page ------------------------------------------------------------- */

static void put_head(const struct picture *picture, FILE *to)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" "
          "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<title>", to);
    text_put_xml(to, picture_title(picture), NAME_LIMIT);
    fputs("</title>\n<style>\n", to);
    svg_put_rules(to);
    fwrite(page_css, 1, page_css_size, to);
    fputs("</style>\n</head>\n<body>\n", to);
}

static void put_tools(FILE *to)
{
    fputs("<nav data-script hidden>\n"
          "<button id=\"closer\">Closer</button>\n<button id=\"wider\">Wider</button>\n"
          "<button id=\"earlier\">Earlier</button>\n<button id=\"later\">Later</button>\n"
          "<button id=\"whole\">Everything</button>\n<output id=\"view\"></output>\n</nav>\n", to);
}

static void put_table_row(const struct partition *partition, size_t index, FILE *to)
{
    char start[AXIS_TEXT], length[CLI_SIZE_TEXT];
    layout_format_offset(partition->start, start);
    cli_format_size(partition->length, length);
    fprintf(to, "<tr><td class=\"number\">%u</td><td>%s</td><td>", partition->number, partition->type);
    text_put_xml(to, partition->name, SIZE_MAX);
    fprintf(to, "</td><td class=\"number\">%s</td><td class=\"number\">%s</td>"
            "<td><button data-partition=\"%zu\" data-script hidden>Look</button></td></tr>\n", start, length, index);
}

static void put_table(const struct picture *picture, FILE *to)
{
    const struct partition_table *table = &picture->partitions;
    if (table->count == 0)
        return;
    fputs("<table>\n<tr><th class=\"number\">No.</th><th>Partition</th><th>Name</th><th class=\"number\">Start</th>"
          "<th class=\"number\">Size</th><th></th></tr>\n", to);
    for (size_t i = 0; i < table->count; i++) {
        uint64_t from, end;
        if (picture_clip(picture, &table->partitions[i], &from, &end))
            put_table_row(&table->partitions[i], i, to);
    }
    fputs("</table>\n", to);
}

static void draw(const struct picture *picture, FILE *to)
{
    put_head(picture, to);
    put_tools(to);
    fputs("<main>\n", to);
    svg_put(picture, to, false);
    fputs("</main>\n", to);
    put_table(picture, to);
    fputs("<p class=\"help\" data-script hidden>Point at a cell for details. Double-click, Ctrl and the wheel, "
          "or + and - look closer and wider; 0 shows everything; arrow keys move from cell to cell.</p>\n"
          "<div id=\"tip\" role=\"status\" hidden></div>\n", to);
    put_data(picture, to);
    fputs("<script>\n", to);
    fwrite(page_js, 1, page_js_size, to);
    fputs("</script>\n</body>\n</html>\n", to);
}

const struct picture_form picture_form_html = { svg_cell_limit, DETAIL_CELLS, draw };
