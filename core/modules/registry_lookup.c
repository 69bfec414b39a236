/* Looking modules up: by name, alias, suffix or scheme. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "context/context.h"
#include "registry_internal.h"

static void list(struct registry *registry, const enum module_group *groups, size_t group_count,
                 const struct imgtk_module **out, size_t *count)
{
    pthread_mutex_lock(&registry->lock);
    for (size_t i = 0; i < group_count; i++)
        registry_load(registry, groups[i]);
    for (size_t i = 0; i < registry->entry_count; i++)
        registry->listing[i] = registry->entries[i]->public;
    *out = registry->listing;
    *count = registry->entry_count;
    pthread_mutex_unlock(&registry->lock);
}

int imgtk_modules(struct imgtk_context *context, const struct imgtk_module **out, size_t *count,
                  struct imgtk_error *err)
{
    static const enum module_group groups[] = { MODULES_ALL, MODULES_DIGESTS };
    (void)err;
    list(context->registry, groups, 2, out, count);
    return 0;
}

void registry_formats(struct imgtk_context *context, const struct imgtk_module **out, size_t *count)
{
    static const enum module_group groups[] = { MODULES_FORMATS };
    list(context->registry, groups, 1, out, count);
}

void imgtk_load_formats(struct imgtk_context *context)
{
    const struct imgtk_module *ignored;
    size_t count;
    registry_formats(context, &ignored, &count);
}

const char *imgtk_module_folder(const struct imgtk_context *context, size_t index)
{
    const struct module_folders *folders = &context->registry->folders;
    return index < folders->count ? folders->items[index] : NULL;
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

/* Formats that have a package of their own, imgtk-format-NAME, each with another name that it is asked for by. */
static const struct { const char *format, *alias; } packaged[] = {
    { "qcow2", NULL }, { "vmdk", NULL }, { "vpc", "vhd" }, { "vhdx", NULL }, { "vdi", NULL }
};
#define PACKAGED_COUNT (sizeof(packaged) / sizeof(packaged[0]))

static void append_name(char *list, size_t size, const char *name)
{
    size_t used = strlen(list);
    snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
}

static const char *format_of_package(const char *name)
{
    for (size_t i = 0; i < PACKAGED_COUNT; i++)
        if (strcmp(packaged[i].format, name) == 0 || (packaged[i].alias && strcmp(packaged[i].alias, name) == 0))
            return packaged[i].format;
    return NULL;
}

/* The installed formats as candidates, and as a list; how many there are. */
static size_t list_installed(const struct registry *registry, const char **names, char *list, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_driver *driver = registry->entries[i]->public.driver;
        if (!driver)
            continue;
        append_name(list, size, driver->name);
        names[count++] = driver->name;
    }
    return count;
}

static int unknown_format(const struct registry *registry, const char *name, struct imgtk_error *err)
{
    const char *names[MAX_MODULES + PACKAGED_COUNT + 1];
    char installed[512] = "", hint[128] = "", package[128] = "";
    size_t count = list_installed(registry, names, installed, sizeof(installed));
    for (size_t i = 0; i < PACKAGED_COUNT; i++)
        names[count++] = packaged[i].format;
    names[count] = NULL;
    const char *format = format_of_package(name), *near = imgtk_nearest_word(name, names);
    bool plain = name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789")] == '\0';
    if (format)
        snprintf(hint, sizeof(hint), ": install imgtk-format-%s", format);
    else if (near)
        snprintf(hint, sizeof(hint), "; did you mean '%s'?", near);
    else if (plain)
        snprintf(package, sizeof(package), "; another one would be in a package imgtk-format-%.60s", name);
    return imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown file format '%.60s'%s (installed: %s%s)", name, hint, installed,
                      package);
}

int imgtk_driver_find(struct imgtk_context *context, const char *name, const struct imgtk_driver **out,
                      struct imgtk_error *err)
{
    struct registry *registry = context->registry;
    const struct entry *broken = NULL;
    int status = 0;
    pthread_mutex_lock(&registry->lock);
    struct entry *entry = name_is_plain(name) ? registry_find_or_load(registry, PLACE_FOLDER, name, &broken) : NULL;
    *out = entry ? entry->public.driver : NULL;
    if (!*out && !broken) { /* an alias is known only to the module that has it */
        registry_load(registry, MODULES_FORMATS);
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

int registry_recorded_format(struct imgtk_context *context, const char *recorded, const char **out,
                             struct imgtk_error *err)
{
    struct registry *registry = context->registry;
    pthread_mutex_lock(&registry->lock);
    *out = format_of_package(recorded);
    const struct entry *entry = *out ? NULL : registry_find_usable(registry, PLACE_FOLDER, recorded);
    if (!*out && !entry) {
        registry_load(registry, MODULES_FORMATS);
        entry = registry_find_usable(registry, PLACE_FOLDER, recorded);
    }
    const struct imgtk_driver *driver = entry ? entry->public.driver : NULL;
    if (!*out && !driver)
        driver = find_by_alias(registry, recorded);
    if (driver)
        *out = driver->name;
    int status = *out ? 0 : unknown_format(registry, recorded, err);
    pthread_mutex_unlock(&registry->lock);
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
    registry_load(registry, MODULES_FORMATS);
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
    const struct entry *broken = NULL;
    const char *module = registry_storage_module(name);
    struct entry *entry = module ? registry_find_or_load(registry, PLACE_FOLDER, module, &broken) : NULL;
    return entry && claims(entry->public.storage, name) ? entry->public.storage : NULL;
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
        registry_load(registry, MODULES_ALL);
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
    registry_load(registry, MODULES_ALL);
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_storage_ops *storage = registry->entries[i]->public.storage;
        for (const struct imgtk_opt *opt = storage ? storage->opts : NULL; !found && opt && opt->name; opt++)
            found = strcmp(opt->name, option) == 0;
    }
    pthread_mutex_unlock(&registry->lock);
    return found;
}

/* ---- Digests -------------------------------------------------------------- */

static int unknown_digest(struct registry *registry, const char *name, const struct entry *broken,
                          struct imgtk_error *err)
{
    char known[512] = "";
    const char *names[MAX_MODULES + 1];
    size_t count = 0;
    if (broken)
        return imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown digest '%s': %s: %s", name, broken->path, broken->reason);
    registry_load(registry, MODULES_DIGESTS);
    for (size_t i = 0; i < registry->entry_count; i++) {
        const struct imgtk_digest *digest = registry->entries[i]->public.digest;
        if (!digest)
            continue;
        append_name(known, sizeof(known), digest->name);
        names[count++] = digest->name;
    }
    names[count] = NULL;
    const char *near = imgtk_nearest_word(name, names);
    if (near)
        return imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown digest '%.60s'; did you mean '%s'? (installed: %s)", name,
                          near, known);
    return imgtk_fail(err, IMGTK_ENOTFOUND, "Unknown digest '%.60s' (installed: %s)", name, *known ? known : "none");
}

int registry_digest(struct imgtk_context *context, const char *name, const struct imgtk_digest **out,
                    struct imgtk_error *err)
{
    struct registry *registry = context->registry;
    const struct entry *broken = NULL;
    if (!name)
        name = IMGTK_DIGEST_DEFAULT;
    pthread_mutex_lock(&registry->lock);
    struct entry *entry = name_is_plain(name) ? registry_find_or_load(registry, PLACE_DIGEST, name, &broken) : NULL;
    *out = entry ? entry->public.digest : NULL;
    int status = entry ? 0 : unknown_digest(registry, name, broken, err);
    pthread_mutex_unlock(&registry->lock);
    if (!status)
        context_note(context, "digest %s: %s", entry->name, entry->path);
    return status;
}

int imgtk_load_digest(struct imgtk_context *context, const char *name, struct imgtk_error *err)
{
    const struct imgtk_digest *ignored;
    return registry_digest(context, name, &ignored, err);
}

int digest_complete(const struct imgtk_digest *from, struct imgtk_digest *out, struct imgtk_error *err)
{
    if (from->struct_size < sizeof(*out))
        return imgtk_fail(err, IMGTK_EINVAL, "its table has %zu bytes, too few for the required ops",
                          from->struct_size);
    *out = *from;
    out->struct_size = sizeof(*out);
    if (!out->name || !out->open || !out->close || !out->begin || !out->update || !out->end)
        return imgtk_fail(err, IMGTK_EINVAL, "it lacks a required op");
    if (out->length == 0 || out->length > IMGTK_DIGEST_MAX)
        return imgtk_fail(err, IMGTK_EINVAL, "its digest has %zu bytes, the limit is %d", out->length,
                          IMGTK_DIGEST_MAX);
    if (!out->description)
        out->description = "";
    if (!out->version)
        out->version = "";
    return 0;
}
