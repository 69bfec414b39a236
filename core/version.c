#include "imgtk/version.h"

#include <jansson.h>
#include <yaml.h>

const char *imgtk_version(void)
{
    return IMGTK_VERSION;
}

bool imgtk_library(size_t index, const char **name, const char **version)
{
    static const char *const names[] = { "jansson", "libyaml" };
    if (index >= sizeof names / sizeof names[0])
        return false;
    *name = names[index];
    *version = index == 0 ? jansson_version_str() : yaml_get_version_string();
    return true;
}
