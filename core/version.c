#include "imgtk/version.h"

#include <jansson.h>
#include <yaml.h>

const char *imgtk_version(void)
{
    return IMGTK_VERSION;
}

/* Those of the modules: asking the libraries would mean to load all of them. */
static const struct { const char *name, *version; } built_with[] = { IMGTK_MODULE_LIBRARIES };

bool imgtk_library(size_t index, const char **name, const char **version)
{
    static const char *const linked[] = { "jansson", "libyaml" };
    const size_t linked_count = sizeof linked / sizeof linked[0];
    if (index < linked_count) {
        *name = linked[index];
        *version = index == 0 ? jansson_version_str() : yaml_get_version_string();
        return true;
    }
    index -= linked_count;
    if (index >= sizeof built_with / sizeof built_with[0])
        return false;
    *name = built_with[index].name;
    *version = built_with[index].version;
    return true;
}
