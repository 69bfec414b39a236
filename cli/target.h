/* What create and convert share: the target's format, its options and its backing file. */
#ifndef IMGTK_CLI_TARGET_H
#define IMGTK_CLI_TARGET_H

#include "cli.h"

struct target_request {
    const char *name;             /* the file to make */
    const char *format;           /* NULL: by its suffix, else raw */
    const struct cli_list *options;
    const char *backing, *backing_format; /* -b, -F; NULL: not given */
};

struct target {
    const struct imgtk_driver *driver;
    const char *guessed;          /* why it is that format; NULL: the user named it */
    char *options;                /* all -o and the backing file as one text; NULL: none */
    struct imgtk_opts *parsed;    /* the configuration's defaults, then options */
    const char *backing, *backing_format; /* wherever they were given; NULL: none */
};

/* Not 0: the mistake is printed. Free with target_free() in any case. */
int target_prepare(struct cli *cli, const struct target_request *request, struct target *out);
void target_free(struct target *target);

/* Notes the files that will be made and the backing file that will be read; see confine.h. Not 0: printed. */
int target_confine(struct cli *cli, const struct target *target, const char *name);

/* Whether an -o asks for help, which target_print_help() then gives. */
bool target_wants_help(const struct cli_list *options);
int target_print_help(struct cli *cli, const char *name, const char *format);

/* Opens the backing file for the target called `name`. Not 0: the failure is printed. */
int target_open_backing(struct cli *cli, const struct target *target, const char *name, struct imgtk_image **out);

/* qemu-img's "Formatting 'o.qcow2', fmt=qcow2 ..." */
void target_print_formatting(const struct target *target, const char *name, uint64_t size);

#endif
