/* Naming an image on the command line: a file name, or --image-opts' keys. */
#ifndef IMGTK_CLI_SOURCE_H
#define IMGTK_CLI_SOURCE_H

#include "cli.h"

struct source {
    const char *name;                   /* as messages call it */
    struct imgtk_image_request request;
    char *memory;                       /* what name and request point into; NULL: nothing */
};

/*
 * `text` as the user gave it; with image_opts it is "driver=FORMAT,file.filename=NAME" and the format's own options.
 * format (may be NULL) is -f. Not 0: the mistake is printed. Free with source_free() in any case.
 */
int source_parse(struct cli *cli, const char *text, const char *format, bool image_opts, struct source *out);
void source_free(struct source *source);
/* imgtk_image_open() with the failure printed. */
int source_open(struct cli *cli, const struct source *source, struct imgtk_image **out);

/*
 * Where `name`, given for the image `beside`, lies: counted from that image's folder unless it is absolute, "-" or
 * has a scheme. free() it; NULL: out of memory.
 */
char *source_resolve(const char *beside, const char *name);

#endif
