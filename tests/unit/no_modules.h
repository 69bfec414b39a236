/* The registry of a program that has no modules, for tests of what only asks it. */
#ifndef IMGTK_TEST_NO_MODULES_H
#define IMGTK_TEST_NO_MODULES_H

#include "context.h"
#include "registry.h"

int registry_storage_for(struct imgtk_context *unused, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err)
{
    (void)unused, (void)name, (void)err;
    *out = NULL;
    return 0;
}

bool registry_storage_has_option(struct imgtk_context *unused, const char *option)
{
    (void)unused, (void)option;
    return false;
}

const char *registry_storage_module(const char *name)
{
    (void)name;
    return NULL;
}

#endif
