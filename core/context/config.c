/* Which configuration files there are, and what they amount to. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char system_file[] = IMGTK_SYSCONFDIR "/imgtk/imgtk.yaml";

static void free_list(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
}

void config_free(struct config *config)
{
    free_list(config->module_dirs, config->module_dir_count);
    free_list(config->disabled_modules, config->disabled_module_count);
    free_list(config->allow_dirs, config->allow_dir_count);
    for (size_t i = 0; i < config->format_option_count; i++) {
        free(config->format_options[i].format);
        free(config->format_options[i].options);
    }
    free(config->format_options);
    *config = (struct config){ 0 };
}

static int read_all(int fd, const char *name, char *buf, size_t *length, struct imgtk_error *err)
{
    *length = 0;
    while (*length <= CONFIG_MAX_SIZE) {
        ssize_t done = read(fd, buf + *length, CONFIG_MAX_SIZE + 1 - *length);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return imgtk_fail_errno(err, errno, "%s: cannot read the configuration", name);
        }
        if (done == 0) {
            return 0;
        }
        *length += (size_t)done;
    }
    return imgtk_fail(err, IMGTK_ELIMIT, "%s: the configuration is larger than %d bytes", name, CONFIG_MAX_SIZE);
}

static int load_fd(int fd, const char *name, struct config *config, struct imgtk_error *err)
{
    char *text = malloc(CONFIG_MAX_SIZE + 1);
    if (text == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the configuration");
    }
    size_t length;
    int rc = read_all(fd, name, text, &length, err);
    if (rc == 0) {
        rc = config_parse(name, text, length, config, err);
    }
    free(text);
    return rc;
}

static int load_file(const char *name, bool required, struct config *config, struct imgtk_error *err)
{
    /* Not blocking: a FIFO in the file's place must not hang every command. */
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        return absent && !required ? 0 : imgtk_fail_errno(err, errno, "%s: cannot open the configuration", name);
    }
    int rc = load_fd(fd, name, config, err);
    close(fd);
    return rc;
}

static int load_user_file(struct config *config, struct imgtk_error *err)
{
    const char *folder = secure_getenv("XDG_CONFIG_HOME"), *below = "";
    if (folder == NULL || folder[0] != '/') {
        folder = secure_getenv("HOME");
        below = "/.config";
    }
    if (folder == NULL || folder[0] != '/') {
        return 0;
    }
    char *name = NULL;
    if (asprintf(&name, "%s%s/imgtk/imgtk.yaml", folder, below) < 0) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the configuration");
    }
    int rc = load_file(name, false, config, err);
    free(name);
    return rc;
}

int config_load(struct config *out, struct imgtk_error *err)
{
    *out = (struct config){ 0 };
    const char *only = secure_getenv("IMGTK_CONFIG");
    int rc;
    if (only != NULL && only[0] != '\0') {
        rc = load_file(only, true, out, err);
    } else {
        rc = load_file(system_file, false, out, err);
        if (rc == 0) {
            rc = load_user_file(out, err);
        }
    }
    if (rc != 0) {
        config_free(out);
    }
    return rc;
}
