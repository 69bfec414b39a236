#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "context/context.h"
#include "registry_internal.h"

/*
 * Where names of these kinds lead. The libraries behind them take longer to load than most commands run, so a storage
 * module that is listed here is loaded for its own names only.
 */
static const struct { const char *scheme, *module; } known_storages[] = {
    { "http:", "http" }, { "https:", "http" }, { "nbd:", "nbd" }, { "nbds:", "nbd" }, { "nbd+", "nbd" },
    { "nbds+", "nbd" },   { "[ ", "nbd" },
};
#define KNOWN_STORAGES (sizeof(known_storages) / sizeof(known_storages[0]))

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

struct entry *registry_find_usable(struct registry *registry, enum module_place place, const char *name)
{
    for (size_t i = 0; i < registry->entry_count; i++) {
        struct entry *entry = registry->entries[i];
        if (!entry->public.skipped && entry->place == place && strcmp(entry->name, name) == 0)
            return entry;
    }
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

static bool is_misplaced(const struct entry *entry)
{
    return entry->file.is_digest != (entry->place == PLACE_DIGEST);
}

static void load_entry(struct registry *registry, struct entry *entry, const char *folder)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct entry *other = registry_find_usable(registry, entry->place, entry->name);
    if (is_disabled(registry, entry->name)) {
        skip(entry, "disabled by the configuration");
    } else if (other) {
        snprintf(entry->reason, sizeof(entry->reason), "duplicate name: %.900s is used", other->path);
        entry->public.skipped = entry->reason;
    } else if (module_path_trusted(folder, true, &err) ||
               module_file_load(entry->path, entry->name, &entry->file, &err)) {
        skip(entry, err.message);
    } else if (is_misplaced(entry)) {
        skip(entry, entry->file.is_digest ? "a digest: it belongs into the folder 'digest' beside it" : "not a digest");
    } else {
        entry->public.driver = entry->file.is_driver ? &entry->file.driver : NULL;
        entry->public.storage = entry->file.is_storage ? &entry->file.storage : NULL;
        entry->public.digest = entry->file.is_digest ? &entry->file.digest : NULL;
    }
}

static enum module_place place_of(enum module_group group)
{
    return group == MODULES_DIGESTS ? PLACE_DIGEST : PLACE_FOLDER;
}

/* The folder of a place below a module folder; false: the path is too long. */
static bool place_folder(const char *folder, enum module_place place, char out[PATH_MAX])
{
    int length = snprintf(out, PATH_MAX, "%s%s", folder, place == PLACE_DIGEST ? "/digest" : "");
    return length >= 0 && length < PATH_MAX;
}

static bool module_path(const char *folder, const char *name, char out[PATH_MAX])
{
    int length = snprintf(out, PATH_MAX, "%s/%s.so", folder, name);
    return length >= 0 && length < PATH_MAX;
}

/* Looks at one file, once. NULL when out of memory or over the limit. */
static struct entry *consider(struct registry *registry, enum module_place place, const char *folder, const char *name)
{
    char path[PATH_MAX];
    if (!module_path(folder, name, path))
        return NULL;
    struct entry *entry = find_path(registry, path);
    if (entry)
        return entry;
    if (registry->entry_count == MAX_MODULES)
        return NULL;
    entry = entry_new(name, path);
    if (!entry)
        return NULL;
    entry->place = place;
    load_entry(registry, entry, folder);
    registry->entries[registry->entry_count++] = entry;
    return entry;
}

static bool is_known_storage(const char *name)
{
    for (size_t i = 0; i < KNOWN_STORAGES; i++)
        if (strcmp(known_storages[i].module, name) == 0)
            return true;
    return false;
}

static bool belongs_to(const char *name, enum module_group group)
{
    return group == MODULES_ALL || group == MODULES_DIGESTS || !is_known_storage(name);
}

static void consider_folder(struct registry *registry, enum module_group group, const char *folder)
{
    char *names[MODULE_NAMES_MAX];
    size_t count = module_folder_names(folder, names);
    for (size_t i = 0; i < count; i++) {
        if (belongs_to(names[i], group))
            consider(registry, place_of(group), folder, names[i]);
        free(names[i]);
    }
}

void registry_load(struct registry *registry, enum module_group group)
{
    char folder[PATH_MAX];
    if (registry->loaded[group])
        return;
    for (size_t i = 0; i < registry->folders.count; i++)
        if (place_folder(registry->folders.items[i], place_of(group), folder))
            consider_folder(registry, group, folder);
    registry->loaded[group] = true;
}

const char *registry_storage_module(const char *name)
{
    for (size_t i = 0; i < KNOWN_STORAGES; i++)
        if (strncmp(known_storages[i].scheme, name, strlen(known_storages[i].scheme)) == 0)
            return known_storages[i].module;
    return NULL;
}

struct entry *registry_find_or_load(struct registry *registry, enum module_place place, const char *name,
                                    const struct entry **broken)
{
    struct entry *entry = registry_find_usable(registry, place, name);
    for (size_t i = 0; !entry && i < registry->folders.count; i++) {
        char folder[PATH_MAX], path[PATH_MAX];
        if (!place_folder(registry->folders.items[i], place, folder) || !module_path(folder, name, path) ||
            access(path, F_OK) != 0)
            continue;
        entry = consider(registry, place, folder, name);
        if (entry && entry->public.skipped) {
            *broken = entry;
            entry = NULL;
        }
    }
    return entry;
}

static bool is_hidden(const struct registry *registry, size_t index, enum module_place place, const char *name)
{
    for (size_t i = 0; i < index; i++) {
        char folder[PATH_MAX], path[PATH_MAX];
        if (place_folder(registry->folders.items[i], place, folder) && module_path(folder, name, path) &&
            access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static void name_files(const struct registry *registry, size_t index, enum module_place place,
                       void (*each)(void *, const char *), void *context)
{
    char folder[PATH_MAX], *names[MODULE_NAMES_MAX];
    if (!place_folder(registry->folders.items[index], place, folder))
        return;
    size_t count = module_folder_names(folder, names);
    for (size_t i = 0; i < count; i++) {
        if (!is_disabled(registry, names[i]) && !is_hidden(registry, index, place, names[i]))
            each(context, names[i]);
        free(names[i]);
    }
}

void imgtk_module_names(struct imgtk_context *context, void (*each)(void *, const char *), void *each_context)
{
    static const enum module_place places[] = { PLACE_FOLDER, PLACE_DIGEST };
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        for (size_t j = 0; j < context->registry->folders.count; j++)
            name_files(context->registry, j, places[i], each, each_context);
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
    int status = module_folders_find(config, &registry->folders, err);
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
    module_folders_free(&registry->folders);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}
