/* What may stand in an imgtk.yaml. The schema drives the parser, so nesting that it does not know ends at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_reader.h"

/* ---- Entries of lists ---------------------------------------------------- */

static int folder_entry(const struct config_reader *reader, const char *key, char **out)
{
    int rc = config_expect_text(reader, key, "a list of folders");
    if (rc != 0) {
        return rc;
    }
    const char *text = config_text(reader), *home = "";
    if (strncmp(text, "~/", 2) == 0) {
        home = secure_getenv("HOME");
        text++;
    }
    if (home == NULL || text[0] != '/') {
        return config_fail(reader, key, "'%s' is not an absolute folder", config_text(reader));
    }
    return asprintf(out, "%s%s", home, text) < 0 ? config_fail_memory(reader) : 0;
}

static int name_entry(const struct config_reader *reader, const char *key, char **out)
{
    int rc = config_expect_text(reader, key, "a list of module names");
    if (rc != 0) {
        return rc;
    }
    const char *text = config_text(reader);
    if (text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-")] != '\0') {
        return config_fail(reader, key, "'%s' is not a module's name (\"qcow2\")", text);
    }
    *out = strdup(text);
    return *out == NULL ? config_fail_memory(reader) : 0;
}

/* ---- format_options ------------------------------------------------------ */

struct text {
    FILE *file;
    char *data;
    size_t length;
};

static int read_option(struct config_reader *reader, const char *key, void *context)
{
    struct text *text = context;
    if (key[strcspn(key, "=,")] != '\0') {
        return config_fail(reader, key, "not an option's name");
    }
    int rc = config_expect_text(reader, key, "a single value");
    if (rc != 0) {
        return rc;
    }
    fprintf(text->file, "%s%s=", ftell(text->file) > 0 ? "," : "", key);
    for (const char *c = config_text(reader); *c != '\0'; c++) {
        fputs(*c == ',' ? ",," : (char[]){ *c, '\0' }, text->file);
    }
    return 0;
}

/* The options of one format as -o takes them, allocated. */
static int read_option_text(struct config_reader *reader, const char *key, char **out)
{
    struct text text = { NULL, NULL, 0 };
    text.file = open_memstream(&text.data, &text.length);
    if (text.file == NULL) {
        return config_fail_memory(reader);
    }
    int rc = config_read_mapping(reader, key, read_option, &text);
    bool written = ferror(text.file) == 0;
    written = fclose(text.file) == 0 && written;
    if (rc == 0 && !written) {
        rc = config_fail_memory(reader);
    }
    if (rc != 0) {
        free(text.data);
        return rc;
    }
    *out = text.data;
    return 0;
}

/* The entry of `format`, made when there is none; NULL: no memory. */
static struct config_format_options *format_entry(struct config *config, const char *format)
{
    for (size_t i = 0; i < config->format_option_count; i++) {
        if (strcmp(config->format_options[i].format, format) == 0) {
            return &config->format_options[i];
        }
    }
    size_t size = (config->format_option_count + 1) * sizeof(*config->format_options);
    struct config_format_options *all = realloc(config->format_options, size);
    if (all == NULL) {
        return NULL;
    }
    config->format_options = all;
    struct config_format_options *entry = &all[config->format_option_count];
    *entry = (struct config_format_options){ .format = strdup(format) };
    if (entry->format == NULL) {
        return NULL;
    }
    config->format_option_count++;
    return entry;
}

static int read_format(struct config_reader *reader, const char *key, void *context)
{
    char *options = NULL;
    (void)context;
    int rc = read_option_text(reader, key, &options);
    if (rc != 0) {
        return rc;
    }
    struct config_format_options *entry = format_entry(reader->config, key);
    if (entry == NULL) {
        free(options);
        return config_fail_memory(reader);
    }
    free(entry->options);
    entry->options = options;
    return 0;
}

/* ---- The keys ------------------------------------------------------------- */

static int read_module_dirs(struct config_reader *reader, const char *key)
{
    struct config *config = reader->config;
    return config_read_list(reader, key, folder_entry, &config->module_dirs, &config->module_dir_count);
}

static int read_disabled_modules(struct config_reader *reader, const char *key)
{
    struct config *config = reader->config;
    return config_read_list(reader, key, name_entry, &config->disabled_modules, &config->disabled_module_count);
}

static int read_allow_dirs(struct config_reader *reader, const char *key)
{
    struct config *config = reader->config;
    return config_read_list(reader, key, folder_entry, &config->allow_dirs, &config->allow_dir_count);
}

static int read_format_options(struct config_reader *reader, const char *key)
{
    return config_read_mapping(reader, key, read_format, NULL);
}

static int read_workers(struct config_reader *reader, const char *key)
{
    int rc = config_expect_text(reader, key, "a number");
    if (rc != 0) {
        return rc;
    }
    const char *text = config_text(reader);
    bool digits = config_is_plain(reader) && text[strspn(text, "0123456789")] == '\0';
    unsigned long value = digits && strlen(text) < 6 ? strtoul(text, NULL, 10) : 0;
    if (value < 1 || value > CONFIG_MAX_WORKERS) {
        return config_fail(reader, key, "'%s' is not a number from 1 to %d", text, CONFIG_MAX_WORKERS);
    }
    reader->config->workers = (unsigned)value;
    return 0;
}

static int read_references(struct config_reader *reader, const char *key)
{
    int rc = config_expect_text(reader, key, "beneath, any or none");
    if (rc == 0 && imgtk_reference_policy_parse(config_text(reader), &reader->config->references, NULL) != 0) {
        rc = config_fail(reader, key, "'%s' is not beneath, any or none", config_text(reader));
    }
    return rc;
}

static int read_untrusted(struct config_reader *reader, const char *key)
{
    static const char *const names[] = {
        [IMGTK_TRUSTED] = "no", [IMGTK_UNTRUSTED] = "yes", [IMGTK_UNTRUSTED_REQUIRED] = "require"
    };
    int rc = config_expect_text(reader, key, "no, yes or require");
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(config_text(reader), names[i]) == 0) {
            reader->config->trust = (enum imgtk_trust)i;
            return 0;
        }
    }
    return config_fail(reader, key, "'%s' is not no, yes or require", config_text(reader));
}

static int read_bound(struct config_reader *reader, const char *key, uint64_t *out)
{
    int rc = config_expect_text(reader, key, "a size");
    if (rc != 0) {
        return rc;
    }
    struct imgtk_error err = IMGTK_ERROR_INIT;
    return imgtk_parse_size(config_text(reader), out, &err) ? config_fail(reader, key, "%s", err.message) : 0;
}

static int read_max_output(struct config_reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.output);
}

static int read_max_metadata(struct config_reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.metadata);
}

static int read_max_memory(struct config_reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.memory);
}

static int read_max_time(struct config_reader *reader, const char *key)
{
    int rc = config_expect_text(reader, key, "a number of seconds");
    if (rc != 0) {
        return rc;
    }
    const char *text = config_text(reader);
    if (text[strspn(text, "0123456789")] != '\0' || strlen(text) > 9) {
        return config_fail(reader, key, "'%s' is not a number of seconds", text);
    }
    reader->config->budget.seconds = strtoul(text, NULL, 10);
    return 0;
}

static const struct {
    const char *name;
    int (*read)(struct config_reader *reader, const char *key);
} known_keys[] = {
    { "module_dirs", read_module_dirs },
    { "disabled_modules", read_disabled_modules },
    { "workers", read_workers },
    { "references", read_references },
    { "allow_dirs", read_allow_dirs },
    { "format_options", read_format_options },
    { "untrusted", read_untrusted },
    { "max_output", read_max_output },
    { "max_metadata", read_max_metadata },
    { "max_memory", read_max_memory },
    { "max_time", read_max_time },
};
enum { known_key_count = sizeof(known_keys) / sizeof(known_keys[0]) };

static int read_known_key(struct config_reader *reader, const char *key, void *context)
{
    (void)context;
    for (size_t i = 0; i < known_key_count; i++) {
        if (strcmp(key, known_keys[i].name) == 0) {
            return known_keys[i].read(reader, key);
        }
    }
    char names[256] = "";
    for (size_t i = 0, length = 0; i < known_key_count; i++) {
        length += (size_t)snprintf(names + length, sizeof(names) - length, "%s%s", i > 0 ? ", " : "",
                                   known_keys[i].name);
    }
    return config_fail(reader, key, "unknown key; the known ones are %s", names);
}

/* ---- The file -------------------------------------------------------------- */

/* A file of comments alone has no document, or one that is nothing. */
static bool is_nothing(const struct config_reader *reader)
{
    return config_at(reader, YAML_SCALAR_EVENT) && config_is_plain(reader) && config_text(reader)[0] == '\0';
}

static int read_file(struct config_reader *reader)
{
    int rc = config_next(reader); /* the stream's start */
    if (rc == 0) {
        rc = config_next(reader);
    }
    if (rc != 0 || config_at(reader, YAML_STREAM_END_EVENT)) {
        return rc;
    }
    rc = config_next(reader);
    if (rc == 0 && !is_nothing(reader)) {
        rc = config_read_mapping(reader, "the configuration", read_known_key, NULL);
    }
    if (rc == 0) {
        rc = config_next(reader); /* the document's end */
    }
    if (rc == 0) {
        rc = config_next(reader);
    }
    return rc == 0 && !config_at(reader, YAML_STREAM_END_EVENT) ? config_fail(reader, "---", "a second document") : rc;
}

int config_parse(const char *name, const char *text, size_t length, struct config *config, struct imgtk_error *err)
{
    struct config_reader reader = { .name = name, .config = config, .err = err };
    if (!yaml_parser_initialize(&reader.parser)) {
        return config_fail_memory(&reader);
    }
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    int rc = read_file(&reader);
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return rc;
}
