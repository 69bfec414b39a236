/* One module file: judged, opened, its table completed. Internal to core. */
#ifndef IMGTK_CORE_MODULES_MODULE_FILE_H
#define IMGTK_CORE_MODULES_MODULE_FILE_H

#include "imgtk/image.h"

struct module_file {
    void *library;                    /* dlopen's; NULL when skipped */
    bool is_driver, is_storage, is_digest;
    struct imgtk_driver driver;       /* completed; when is_driver */
    struct imgtk_storage_ops storage; /* completed; when is_storage */
    struct imgtk_digest digest;       /* copied; when is_digest */
};

/* Whether a folder or file may hold code for this process: owned by root or the user, not writable by others. */
int module_path_trusted(const char *path, bool folder, struct imgtk_error *err);

/* Loads path, which must provide the module `name`. */
int module_file_load(const char *path, const char *name, struct module_file *out, struct imgtk_error *err);
void module_file_unload(struct module_file *file);

#endif
