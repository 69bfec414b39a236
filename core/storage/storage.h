/* One open storage: a kind's ops, filled with defaults, and its handle. Internal to core. */
#ifndef IMGTK_CORE_STORAGE_H
#define IMGTK_CORE_STORAGE_H

#include "imgtk/storage.h"

struct imgtk_storage {
    struct imgtk_storage_ops ops; /* every op is callable */
    void *handle;
    char *name;
    uint32_t flags;
};

/* Copies `ops` up to its struct_size and fills optional ops with their defaults; IMGTK_EINVAL names a missing op. */
int storage_ops_complete(const struct imgtk_storage_ops *ops, struct imgtk_storage_ops *out, struct imgtk_error *err);

/* Wraps a handle that `ops` understand; takes the handle (closes it on failure). */
int storage_wrap(const struct imgtk_storage_ops *ops, void *handle, const char *name, struct imgtk_storage **out,
                 struct imgtk_error *err);

/* A local file relative to an open folder, opened by `fd`, which it takes over on success. */
int storage_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err);

#endif
