#include "module_folders.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int add_folder(struct module_folders *folders, const char *folder, size_t length, struct imgtk_error *err)
{
    if (length == 0)
        return 0;
    char **items = realloc(folders->items, (folders->count + 1) * sizeof(*items));
    if (!items)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    folders->items = items;
    items[folders->count] = strndup(folder, length);
    if (!items[folders->count])
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    folders->count++;
    return 0;
}

int module_folders_find(const struct config *config, struct module_folders *folders, struct imgtk_error *err)
{
    int status = 0;
    const char *path = secure_getenv("IMGTK_MODULE_PATH");
    memset(folders, 0, sizeof(*folders));
    while (!status && path && *path) {
        size_t length = strcspn(path, ":");
        status = add_folder(folders, path, length, err);
        path += length + (path[length] == ':');
    }
    for (size_t i = 0; !status && i < config->module_dir_count; i++)
        status = add_folder(folders, config->module_dirs[i], strlen(config->module_dirs[i]), err);
    return status ? status : add_folder(folders, IMGTK_MODULE_DIR, strlen(IMGTK_MODULE_DIR), err);
}

void module_folders_free(struct module_folders *folders)
{
    for (size_t i = 0; i < folders->count; i++)
        free(folders->items[i]);
    free(folders->items);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t module_folder_names(const char *folder, char *names[MODULE_NAMES_MAX])
{
    DIR *dir = opendir(folder);
    if (!dir)
        return 0;
    size_t count = 0;
    struct dirent *item;
    while (count < MODULE_NAMES_MAX && (item = readdir(dir)) != NULL) {
        size_t length = strlen(item->d_name);
        if (length <= 3 || item->d_name[0] == '.' || strcmp(item->d_name + length - 3, ".so") != 0)
            continue;
        names[count] = strndup(item->d_name, length - 3);
        if (names[count])
            count++;
    }
    closedir(dir);
    qsort(names, count, sizeof(names[0]), compare_names);
    return count;
}
