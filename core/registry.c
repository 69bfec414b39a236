#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "context.h"
#include "module_file.h"

#define MAX_MODULES 256 /* files looked at; far more than there are formats */

/* One module file that was looked at; never moves, since users hold pointers to its tables. */
struct entry {
    struct imgtk_module public;
    struct module_file file;
    char *name, *path;
    char reason[IMGTK_MESSAGE_SIZE];
};

struct registry {
    const struct config *config;
    char **folders;
    size_t folder_count;
    pthread_mutex_t lock; /* guards everything below */
    struct entry *entries[MAX_MODULES];
    struct imgtk_module listing[MAX_MODULES];
    size_t entry_count;
    bool formats_loaded, all_loaded;
};

/*
 * Where names of these kinds lead. The libraries behind them take longer to load than most commands run, so a storage
 * module that is listed here is loaded for its own names only.
 */
static const struct { const char *scheme, *module; } known_storages[] = {
    { "http:", "http" }, { "https:", "http" }, { "nbd", "nbd" }, { "[ ", "nbd" },
};
#define KNOWN_STORAGES (sizeof(known_storages) / sizeof(known_storages[0]))

/* ---- Folders ------------------------------------------------------------ */

static int add_folder(struct registry *registry, const char *folder, size_t length, struct imgtk_error *err)
{
    if (length == 0)
        return 0;
    char **folders = realloc(registry->folders, (registry->folder_count + 1) * sizeof(*folders));
    if (!folders)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    registry->folders = folders;
    folders[registry->folder_count] = strndup(folder, length);
    if (!folders[registry->folder_count])
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    registry->folder_count++;
    return 0;
}

static int add_folders(struct registry *registry, struct imgtk_error *err)
{
    int status = 0;
    const char *path = secure_getenv("IMGTK_MODULE_PATH");
    while (!status && path && *path) {
        size_t length = strcspn(path, ":");
        status = add_folder(registry, path, length, err);
        path += length + (path[length] == ':');
    }
    for (size_t i = 0; !status && i < registry->config->module_dir_count; i++)
        status = add_folder(registry, registry->config->module_dirs[i], strlen(registry->config->module_dirs[i]), err);
    return status ? status : add_folder(registry, IMGTK_MODULE_DIR, strlen(IMGTK_MODULE_DIR), err);
}

/* ---- Entries ------------------------------------------------------------ */

static struct entry *entry_new(const char *name, const char *path)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    entry->name = strdup(name);
    entry->path = strdup(path);
    if (!entry->name || !entry->path) {
        free(entry->name);
        free(entry->path);
        free(entry);
        return NULL;
    }
    entry->public.name = entry->name;
    entry->public.path = entry->path;
    return entry;
}

static void entry_free(struct entry *entry)
{
    module_file_unload(&entry->file);
    free(entry->name);
    free(entry->path);
    free(entry);
}

static struct entry *find_path(struct registry *registry, const char *path)
{
    for (size_t i = 0; i < registry->entry_count; i++)
        if (strcmp(registry->entries[i]->path, path) == 0)
            return registry->entries[i];
    return NULL;
}

static struct entry *find_usable(struct registry *registry, const char *name)
{
    for (size_t i = 0; i < registry->entry_count; i++)
        if (!registry->entries[i]->public.skipped && strcmp(registry->entries[i]->name, name) == 0)
            return registry->entries[i];
    return NULL;
}

static bool is_disabled(const struct registry *registry, const char *name)
{
    for (size_t i = 0; i < registry->config->disabled_module_count; i++)
        if (strcmp(registry->config->disabled_modules[i], name) == 0)
            return true;
    return false;
}

static void skip(struct entry *entry, const char *reason)
{
    snprintf(entry->reason, sizeof(entry->reason), "%s", reason);
    entry->public.skipped = entry->reason;
}

static void load_entry(struct registry *registry, struct entry *entry, const char *folder)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct entry *other = find_usable(registry, entry->name);
    if (is_disabled(registry, entry->name)) {
        skip(entry, "disabled by the configuration");
    } else if (other) {
        snprintf(entry->reason, sizeof(entry->reason), "duplicate name: %.900s is used", other->path);
        entry->public.skipped = entry->reason;
    } else if (module_path_trusted(folder, true, &err) ||
               module_file_load(entry->path, entry->name, &entry->file, &err)) {
        skip(entry, err.message);
    } else {
        entry->public.driver = entry->file.is_driver ? &entry->file.driver : NULL;
        entry->public.storage = entry->file.is_storage ? &entry->file.storage : NULL;
    }
}

/* Looks at one file, once. NULL when out of memory or over the limit. */
static struct entry *consider(struct registry *registry, const char *folder, const char *name)
{
    char path[4096];
    int length = snprintf(path, sizeof(path), "%s/%s.so", folder, name);
    if (length < 0 || (size_t)length >= sizeof(path))
        return NULL;
    struct entry *entry = find_path(registry, path);
    if (entry)
        return entry;
    if (registry->entry_count == MAX_MODULES)
        return NULL;
    entry = entry_new(name, path);
    if (!entry)
        return NULL;
    load_entry(registry, entry, folder);
    registry->entries[registry->entry_count++] = entry;
    return entry;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_known_storage(const char *name)
{
    for (size_t i = 0; i < KNOWN_STORAGES; i++)
        if (strcmp(known_storages[i].module, name) == 0)
            return true;
    return false;
}

/* Names in byte order, so that what is loaded first does not depend on the file system. */
static void consider_folder(struct registry *registry, const char *folder, bool storages)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return; /* a folder that is not there holds no modules */
    char *names[MAX_MODULES];
    size_t count = 0;
    struct dirent *item;
    while (count < MAX_MODULES && (item = readdir(dir)) != NULL) {
        size_t length = strlen(item->d_name);
        if (length <= 3 || item->d_name[0] == '.' || strcmp(item->d_name + length - 3, ".so") != 0)
            continue;
        names[count] = strndup(item->d_name, length - 3);
        if (names[count])
            count++;
    }
    closedir(dir);
    qsort(names, count, sizeof(names[0]), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (storages || !is_known_storage(names[i]))
            consider(registry, folder, names[i]);
        free(names[i]);
    }
}

static void load_all(struct registry *registry)
{
    if (registry->all_loaded)
        return;
    for (size_t i = 0; i < registry->folder_count; i++)
        consider_folder(registry, registry->folders[i], true);
    registry->formats_loaded = registry->all_loaded = true;
}

static void load_formats(struct registry *registry)
{
    if (registry->formats_loaded)
        return;
    for (size_t i = 0; i < registry->folder_count; i++)
        consider_folder(registry, registry->folders[i], false);
    registry->formats_loaded = true;
}

/* ---- Life --------------------------------------------------------------- */

static int add_built_in(struct registry *registry, struct imgtk_error *err)
{
    struct entry *entry = entry_new(raw_driver.name, "(built in)");
    if (!entry)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    registry->entries[registry->entry_count++] = entry;
    entry->public.driver = &entry->file.driver;
    entry->file.is_driver = true;
    return driver_complete(&raw_driver, &entry->file.driver, err);
}

int registry_new(const struct config *config, struct registry **out, struct imgtk_error *err)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    registry->config = config;
    pthread_mutex_init(&registry->lock, NULL);
    int status = add_folders(registry, err);
    if (!status)
        status = add_built_in(registry, err);
    if (status) {
        registry_free(registry);
        return status;
    }
    *out = registry;
    return 0;
}

void registry_free(struct registry *registry)
{
    if (!registry)
        return;
    for (size_t i = 0; i < registry->entry_count; i++)
        entry_free(registry->entries[i]);
    for (size_t i = 0; i < registry->folder_count; i++)
        free(registry->folders[i]);
    free(registry->folders);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

/* ---- Look-ups ----------------------------------------------------------- */

static void list(struct registry *registry, void (*load)(struct registry *), const struct imgtk_module **out,
                 size_t *count)
{
    pthread_mutex_lock(&registry->lock);
    load(registry);
    for (size_t i = 0; i < registry->entry_count; i++)
        registry->listing[i] = registry->entries[i]->public;
    *out = registry->listing;
    *count = registry->entry_count;
    pthread_mutex_unlock(&registry->lock);
}

int imgtk_modules(struct imgtk_context *context, const struct imgtk_module **out, size_t *count,
                  struct imgtk_error *err)
{
    (void)err;
    list(context->registry, load_all, out, count);
    return 0;
}

void registry_formats(struct imgtk_context *context, const struct imgtk_module **out, size_t *count)
{
    list(context->registry, load_formats, out, count);
}

static bool name_is_plain(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 64;
}

static const struct imgtk_driver *find_by_alias(struct registry *registry, const char *name)
{
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_driver *driver = registry->entries[i]->public.driver;
        for (size_t j = 0; driver && driver->aliases && driver->aliases[j]; j++)
            if (strcmp(driver->aliases[j], name) == 0)
                return driver;
    }
    return NULL;
}

/* The module of that name: already loaded, or its file in the first folder that has a good one. */
static struct entry *find_or_load(struct registry *registry, const char *name, const struct entry **broken)
{
    struct entry *entry = find_usable(registry, name);
    for (size_t i = 0; !entry && i < registry->folder_count; i++) {
        char path[4096];
        int length = snprintf(path, sizeof(path), "%s/%s.so", registry->folders[i], name);
        if (length < 0 || (size_t)length >= sizeof(path) || access(path, F_OK) != 0)
            continue;
        entry = consider(registry, registry->folders[i], name);
        if (entry && entry->public.skipped) {
            *broken = entry;
            entry = NULL;
        }
    }
    return entry;
}

static int unknown_format(struct registry *registry, const char *name, struct imgtk_error *err)
{
    char known[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_driver *driver = registry->entries[i]->public.driver;
        if (driver && used < sizeof(known))
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", driver->name);
    }
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789")] != '\0')
        return imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown file format '%.60s' (installed: %s)", name, known);
    return imgtk_fail(err, IMGTK_ENOTFOUND,
                      "Unknown file format '%.60s' (installed: %s; a format that is missing comes with the package "
                      "imgtk-format-%.60s)", name, known, name);
}

int imgtk_driver_find(struct imgtk_context *context, const char *name, const struct imgtk_driver **out,
                      struct imgtk_error *err)
{
    struct registry *registry = context->registry;
    const struct entry *broken = NULL;
    int status = 0;
    pthread_mutex_lock(&registry->lock);
    struct entry *entry = name_is_plain(name) ? find_or_load(registry, name, &broken) : NULL;
    *out = entry ? entry->public.driver : NULL;
    if (!*out && !broken) { /* an alias is known only to the module that has it */
        load_formats(registry);
        *out = find_by_alias(registry, name);
    }
    if (!*out && broken)
        status = imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown file format '%s': %s: %s", name, broken->path,
                            broken->reason);
    else if (!*out)
        status = unknown_format(registry, name, err);
    pthread_mutex_unlock(&registry->lock);
    if (!status)
        context_note(context, "format %s: %s", (*out)->name, entry ? entry->path : "by alias");
    return status;
}

const struct imgtk_driver *imgtk_driver_for_name(struct imgtk_context *context, const char *file_name)
{
    const char *dot = strrchr(file_name, '.');
    if (!dot || strchr(dot, '/'))
        return NULL;
    struct registry *registry = context->registry;
    const struct imgtk_driver *found = NULL;
    pthread_mutex_lock(&registry->lock);
    load_formats(registry);
    for (size_t i = 0; !found && i < registry->entry_count; i++) {
        const struct imgtk_driver *driver = registry->entries[i]->public.driver;
        for (size_t j = 0; !found && driver && driver->suffixes && driver->suffixes[j]; j++)
            if (strcasecmp(driver->suffixes[j], dot + 1) == 0)
                found = driver;
    }
    pthread_mutex_unlock(&registry->lock);
    return found;
}

static bool claims(const struct imgtk_storage_ops *storage, const char *name)
{
    for (size_t i = 0; storage && storage->schemes && storage->schemes[i]; i++)
        if (strncmp(storage->schemes[i], name, strlen(storage->schemes[i])) == 0)
            return true;
    return false;
}

/* NULL: not a name of a known kind, or its module is not there or does not claim the name after all. */
static const struct imgtk_storage_ops *find_known_storage(struct registry *registry, const char *name)
{
    for (size_t i = 0; i < KNOWN_STORAGES; i++) {
        const struct entry *broken = NULL;
        if (strncmp(known_storages[i].scheme, name, strlen(known_storages[i].scheme)) != 0)
            continue;
        struct entry *entry = find_or_load(registry, known_storages[i].module, &broken);
        if (entry && claims(entry->public.storage, name))
            return entry->public.storage;
    }
    return NULL;
}

int registry_storage_for(struct imgtk_context *context, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err)
{
    (void)err;
    *out = NULL;
    if (!strchr(name, ':') && name[0] != '[') /* a plain path: no module needs to be asked */
        return 0;
    struct registry *registry = context->registry;
    pthread_mutex_lock(&registry->lock);
    *out = find_known_storage(registry, name);
    if (!*out)
        load_all(registry);
    for (size_t i = 0; !*out && i < registry->entry_count; i++)
        if (claims(registry->entries[i]->public.storage, name))
            *out = registry->entries[i]->public.storage;
    pthread_mutex_unlock(&registry->lock);
    return 0;
}

bool registry_storage_has_option(struct imgtk_context *context, const char *option)
{
    struct registry *registry = context->registry;
    bool found = false;
    pthread_mutex_lock(&registry->lock);
    load_all(registry);
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_storage_ops *storage = registry->entries[i]->public.storage;
        for (const struct imgtk_opt *opt = storage ? storage->opts : NULL; !found && opt && opt->name; opt++)
            found = strcmp(opt->name, option) == 0;
    }
    pthread_mutex_unlock(&registry->lock);
    return found;
}
