/* Where modules are looked for, and the names of the files there. Internal to core. */
#ifndef IMGTK_CORE_MODULES_MODULE_FOLDERS_H
#define IMGTK_CORE_MODULES_MODULE_FOLDERS_H

#include "context/config.h"

struct module_folders {
    char **items;
    size_t count;
};

/* Those of IMGTK_MODULE_PATH, of the configuration, and the installed one. Free in any case. */
int module_folders_find(const struct config *config, struct module_folders *folders, struct imgtk_error *err);
void module_folders_free(struct module_folders *folders);

#define MODULE_NAMES_MAX 256 /* far more than there are formats */
/*
 * The names of the modules in one folder, without ".so", in byte order, so that what is loaded first does not depend
 * on the file system. free() each. A folder that is not there holds none.
 */
size_t module_folder_names(const char *folder, char *names[MODULE_NAMES_MAX]);

#endif
