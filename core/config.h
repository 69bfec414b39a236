/* The configuration file imgtk.yaml, parsed. Internal to core. */
#ifndef IMGTK_CORE_CONFIG_H
#define IMGTK_CORE_CONFIG_H

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
};

/*
 * IMGTK_CONFIG alone when it is set and not empty (missing is then an error), else the system's file and then the
 * user's ($XDG_CONFIG_HOME, else ~/.config, /imgtk/imgtk.yaml), each where it exists; a later file's key replaces
 * an earlier one's. A fault is "FILE:LINE: key: what".
 */
int config_load(struct config *out, struct imgtk_error *err);
void config_free(struct config *config);

#endif
