#include "settings.h"

#include <string.h>
#include <unistd.h>

#include "plugin.h"

/* nbdkit leaves the folder in which it was started; a name that is no path means the same everywhere. */
static int keep_name(const char *name, const char **out)
{
    *out = name;
    if (access(name, F_OK) != 0)
        return 0;
    char *path = nbdkit_absolute_path(name);
    *out = path ? nbdkit_strdup_intern(path) : NULL;
    free(path);
    return *out ? 0 : -1;
}

static int allow_dir(struct imgtk_context *context, const char *name)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const char *path;
    if (keep_name(name, &path))
        return -1;
    return imgtk_context_allow_dir(context, path, &err) ? plugin_fail("allow-dir", &err) : 0;
}

static int set_references(struct imgtk_context *context, const char *text)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    enum imgtk_reference_policy policy;
    if (imgtk_reference_policy_parse(text, &policy, &err))
        return plugin_fail("references", &err);
    imgtk_context_set_references(context, policy);
    return 0;
}

int settings_take(struct settings *settings, struct imgtk_context *context, const char *key, const char *value)
{
    const struct { const char *key; const char **text; } texts[] = {
        { "format", &settings->request.format },
        { "backing-format", &settings->request.backing_format },
        { "snapshot", &settings->request.snapshot },
        { "options", &settings->request.format_opts },
        { "storage-opts", &settings->request.storage_opts },
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (strcmp(key, texts[i].key) == 0) {
            *texts[i].text = value;
            return 0;
        }
    }
    if (strcmp(key, "file") == 0)
        return keep_name(value, &settings->file);
    if (strcmp(key, "allow-dir") == 0)
        return allow_dir(context, value);
    if (strcmp(key, "references") == 0)
        return set_references(context, value);
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}
