/* The registry of a program with one module, a storage, for tests of what only asks it. */
#ifndef IMGTK_TEST_ONE_MODULE_H
#define IMGTK_TEST_ONE_MODULE_H

#include <stdlib.h>
#include <string.h>

#include "context/context.h"
#include "modules/registry.h"

/* "mod://..." opens bytes that spell the name. */
static int mod_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                    struct imgtk_error *err)
{
    (void)flags, (void)opts, (void)err;
    *handle = strdup(name);
    return 0;
}

static int mod_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    (void)err;
    *out = strlen(handle);
    return 0;
}

static int mod_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    (void)err;
    size_t size = strlen(handle);
    *done = offset >= size ? 0 : size - offset < length ? size - (size_t)offset : length;
    memcpy(buf, (char *)handle + offset, *done);
    return 0;
}

static const struct imgtk_storage_ops mod_ops = {
    .struct_size = offsetof(struct imgtk_storage_ops, flags), /* as an older module would be */
    .name = "mod",
    .open = mod_open,
    .close = free,
    .size = mod_size,
    .pread = mod_pread,
};

int registry_storage_for(struct imgtk_context *unused, const char *name, const struct imgtk_storage_ops **out,
                         struct imgtk_error *err)
{
    (void)unused, (void)err;
    *out = strncmp(name, "mod://", 6) == 0 ? &mod_ops : NULL;
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
