/* Pictures of a disk: what is where, collected from extents and partition tables, and the forms it is drawn in. */
#ifndef IMGTK_CLI_PICTURE_H
#define IMGTK_CLI_PICTURE_H

#include <imgtk/jobs.h>
#include <stdio.h>

#include "cells.h"
#include "layout.h"
#include "partitions.h"

struct picture {
    const struct imgtk_map *map;        /* of what */
    struct cells cells;                 /* as many as the form draws */
    struct cells detail;                /* more, for looking closer; none where the form does not ask for it */
    struct partition_table partitions;
    struct imgtk_error fault;           /* status 0: the partition table is good, or there is none */
};

struct picture_form {
    size_t (*cell_limit)(FILE *to);
    size_t detail_limit;                /* 0: no detail */
    void (*draw)(const struct picture *picture, FILE *to);
};

extern const struct picture_form picture_form_svg, picture_form_html, picture_form_bar;

/*
 * Draws map->image, or where it differs from map->relative_to; row and context are not used. A partition table that is
 * damaged or cannot be read is no failure: the picture says so. What cannot be written stays with `to`.
 */
int picture_draw(const struct imgtk_map *map, const struct picture_form *form, FILE *to, struct imgtk_error *err);

/* ---- For the forms -------------------------------------------------------- */

const struct series *picture_kinds(const struct picture *picture);
bool picture_has_layers(const struct picture *picture);
/* The file of a layer, without the credentials that its name may have: pictures are passed on. */
const char *picture_layer_name(const struct picture *picture, size_t depth);
/* The name of the first layer, without folders. */
const char *picture_title(const struct picture *picture);
/* "6 GiB, qcow2, 2 layers; GPT with 3 partitions", by a function that makes text safe for where it is put. */
void picture_put_summary(const struct picture *picture, FILE *to,
                         size_t (*put)(FILE *to, const char *text, size_t limit));
/* "1 EFI System "boot"": at most `limit` characters; returns how many. */
size_t picture_put_partition(const struct partition *partition, FILE *to, size_t limit,
                             size_t (*put)(FILE *to, const char *text, size_t limit));
/* Whether some of the partition is within what is drawn; then also which part, counted from the beginning of that. */
bool picture_clip(const struct picture *picture, const struct partition *partition, uint64_t *from, uint64_t *to);

/* The SVG element alone; a page brings the style, which are the rules of svg_put_rules(). */
void svg_put(const struct picture *picture, FILE *to, bool with_style);
void svg_put_rules(FILE *to);
/* The measures of the drawing as a JSON object, for the page that goes on with it. */
void svg_put_measures(FILE *to);
size_t svg_cell_limit(FILE *to);

#endif
