/* What a registry is made of, for the files that build it and look things up in it. Internal to core. */
#ifndef IMGTK_CORE_MODULES_REGISTRY_INTERNAL_H
#define IMGTK_CORE_MODULES_REGISTRY_INTERNAL_H

#include <pthread.h>

#include "module_file.h"
#include "module_folders.h"
#include "registry.h"

#define MAX_MODULES MODULE_NAMES_MAX /* files looked at */

/* Where a module lies, which says what it may be. */
enum module_place {
    PLACE_FOLDER, /* formats and storages: in a module folder itself */
    PLACE_DIGEST  /* in the folder "digest" of one */
};

/* What is loaded together. */
enum module_group {
    MODULES_FORMATS, /* all of PLACE_FOLDER, without the storage modules that are known to be none of a format */
    MODULES_ALL,     /* of PLACE_FOLDER */
    MODULES_DIGESTS,
    MODULE_GROUPS
};

/* One module file that was looked at; never moves, since users hold pointers to its tables. */
struct entry {
    struct imgtk_module public;
    enum module_place place;
    struct module_file file;
    char *name, *path;
    char reason[IMGTK_MESSAGE_SIZE];
};

struct registry {
    const struct config *config;
    struct module_folders folders;
    pthread_mutex_t lock; /* guards everything below */
    struct entry *entries[MAX_MODULES];
    struct imgtk_module listing[MAX_MODULES];
    size_t entry_count;
    bool loaded[MODULE_GROUPS];
};

/* All with the lock held. */

/* The usable module of that name, if it was looked at already. */
struct entry *registry_find_usable(struct registry *registry, enum module_place place, const char *name);
/*
 * The module of that name: already loaded, or its file in the first folder that has a good one. NULL: there is none;
 * *broken is then the last file of that name that could not be used, if there was one.
 */
struct entry *registry_find_or_load(struct registry *registry, enum module_place place, const char *name,
                                    const struct entry **broken);
/* Looks at every module of the group, once. */
void registry_load(struct registry *registry, enum module_group group);

#endif
