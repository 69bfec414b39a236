/* The configuration file imgtk.yaml, parsed. Internal to core. */
#ifndef IMGTK_CORE_CONTEXT_CONFIG_H
#define IMGTK_CORE_CONTEXT_CONFIG_H

#include "imgtk/image.h"

struct config_format_options {
    char *format;
    char *options; /* as -o takes them */
};

struct config {
    char **module_dirs;
    size_t module_dir_count;
    char **disabled_modules;
    size_t disabled_module_count;
    char **allow_dirs;
    size_t allow_dir_count;
    struct config_format_options *format_options;
    size_t format_option_count;
    unsigned workers; /* 0: not set */
    enum imgtk_reference_policy references;
    enum imgtk_trust trust;
    struct imgtk_budget budget;
};

enum {
    CONFIG_MAX_SIZE = 1 << 20, /* bytes of a file */
    CONFIG_MAX_ENTRIES = 256,  /* of one list or mapping */
    CONFIG_MAX_WORKERS = 64
};

/*
 * IMGTK_CONFIG alone when it is set and not empty (missing is then an error), else the system's file and then the
 * user's ($XDG_CONFIG_HOME, else ~/.config, /imgtk/imgtk.yaml), each where it exists; a later file's key replaces
 * an earlier one's, format_options format by format. A fault is "FILE:LINE: key: what", and *out is then empty.
 */
int config_load(struct config *out, struct imgtk_error *err);
/* One file's text, on top of what *config holds already. `name` is for messages. */
int config_parse(const char *name, const char *text, size_t length, struct config *config, struct imgtk_error *err);
/* Leaves *config empty, fit for another use. */
void config_free(struct config *config);

#endif
