/* The text of one imgtk.yaml. The schema drives the parser, so nesting that it does not know ends at once. */
#include "config.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    const char *name;
    struct config *config;
    struct imgtk_error *err;
};

static int fail(const struct reader *reader, const char *key, const char *format, ...) IMGTK_PRINTF(3, 4);

static int fail(const struct reader *reader, const char *key, const char *format, ...)
{
    char what[IMGTK_MESSAGE_SIZE / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return imgtk_fail(reader->err, IMGTK_EINVAL, "%s:%zu: %s: %s", reader->name,
                      reader->event.start_mark.line + 1, key, what);
}

static int fail_memory(const struct reader *reader)
{
    return imgtk_fail(reader->err, IMGTK_ENOMEM, "out of memory for the configuration");
}

static int fail_syntax(const struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return fail_memory(reader);
    }
    size_t line = parser->error == YAML_READER_ERROR ? parser->mark.line : parser->problem_mark.line;
    return imgtk_fail(reader->err, IMGTK_EINVAL, "%s:%zu: not valid YAML: %s", reader->name, line + 1,
                      parser->problem != NULL ? parser->problem : "unknown fault");
}

/* Goes on to the next event. */
static int next(struct reader *reader)
{
    yaml_event_delete(&reader->event);
    return yaml_parser_parse(&reader->parser, &reader->event) ? 0 : fail_syntax(reader);
}

static bool at(const struct reader *reader, yaml_event_type_t type)
{
    return reader->event.type == type;
}

static const char *text_of(const struct reader *reader)
{
    return (const char *)reader->event.data.scalar.value;
}

static bool is_plain(const struct reader *reader)
{
    return reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static const char *found(const struct reader *reader)
{
    switch (reader->event.type) {
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_ALIAS_EVENT:
        return "an alias, which is not taken here";
    case YAML_SCALAR_EVENT:
        return is_plain(reader) && text_of(reader)[0] == '\0' ? "nothing" : "a single value";
    default:
        return "the end";
    }
}

static int expect(const struct reader *reader, yaml_event_type_t type, const char *key, const char *what)
{
    return at(reader, type) ? 0 : fail(reader, key, "must be %s, not %s", what, found(reader));
}

/* The event is a scalar with text that a C string can hold. */
static int expect_text(const struct reader *reader, const char *key, const char *what)
{
    int rc = expect(reader, YAML_SCALAR_EVENT, key, what);
    if (rc != 0) {
        return rc;
    }
    size_t length = reader->event.data.scalar.length;
    if (length == 0) {
        return fail(reader, key, "must be %s, not nothing", what);
    }
    if (length >= PATH_MAX || strlen(text_of(reader)) != length) {
        return fail(reader, key, "%s", length >= PATH_MAX ? "the text is too long" : "the text holds a NUL");
    }
    return 0;
}

/* ---- Lists of text ------------------------------------------------------ */

/* Turns the event's text into a list's entry. */
typedef int (*entry_fn)(const struct reader *reader, const char *key, char **out);

struct list {
    char **entries;
    size_t count;
};

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->entries[i]);
    }
    free(list->entries);
}

static int folder_entry(const struct reader *reader, const char *key, char **out)
{
    int rc = expect_text(reader, key, "a list of folders");
    if (rc != 0) {
        return rc;
    }
    const char *text = text_of(reader), *home = "";
    if (strncmp(text, "~/", 2) == 0) {
        home = secure_getenv("HOME");
        text++;
    }
    if (home == NULL || text[0] != '/') {
        return fail(reader, key, "'%s' is not an absolute folder", text_of(reader));
    }
    return asprintf(out, "%s%s", home, text) < 0 ? fail_memory(reader) : 0;
}

static int name_entry(const struct reader *reader, const char *key, char **out)
{
    int rc = expect_text(reader, key, "a list of module names");
    if (rc != 0) {
        return rc;
    }
    const char *text = text_of(reader);
    if (text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-")] != '\0') {
        return fail(reader, key, "'%s' is not a module's name (\"qcow2\")", text);
    }
    *out = strdup(text);
    return *out == NULL ? fail_memory(reader) : 0;
}

static int append_entry(const struct reader *reader, const char *key, entry_fn entry, struct list *list)
{
    if (list->count == CONFIG_MAX_ENTRIES) {
        return fail(reader, key, "more than %d entries", CONFIG_MAX_ENTRIES);
    }
    char **entries = realloc(list->entries, (list->count + 1) * sizeof(*entries));
    if (entries == NULL) {
        return fail_memory(reader);
    }
    list->entries = entries;
    int rc = entry(reader, key, &entries[list->count]);
    if (rc == 0) {
        list->count++;
    }
    return rc;
}

static int read_entries(struct reader *reader, const char *key, entry_fn entry, struct list *list)
{
    int rc = expect(reader, YAML_SEQUENCE_START_EVENT, key, "a list");
    if (rc == 0) {
        rc = next(reader);
    }
    while (rc == 0 && !at(reader, YAML_SEQUENCE_END_EVENT)) {
        rc = append_entry(reader, key, entry, list);
        if (rc == 0) {
            rc = next(reader);
        }
    }
    return rc;
}

/* Replaces the list at *entries, which an earlier file may have set. */
static int read_list(struct reader *reader, const char *key, entry_fn entry, char ***entries, size_t *count)
{
    struct list list = { NULL, 0 };
    int rc = read_entries(reader, key, entry, &list);
    if (rc != 0) {
        list_free(&list);
        return rc;
    }
    list_free(&(struct list){ *entries, *count });
    *entries = list.entries;
    *count = list.count;
    return 0;
}

/* ---- Mappings ------------------------------------------------------------ */

/* Reads the value of `key`; the event is its first, and its last when this returns. */
typedef int (*value_fn)(struct reader *reader, const char *key, void *context);

static int key_entry(const struct reader *reader, const char *key, char **out)
{
    int rc = expect_text(reader, key, "a mapping of names to values");
    if (rc != 0) {
        return rc;
    }
    *out = strdup(text_of(reader));
    return *out == NULL ? fail_memory(reader) : 0;
}

/* Adds the key that the event holds to those seen. */
static int read_key(struct reader *reader, const char *what, struct list *seen)
{
    int rc = append_entry(reader, what, key_entry, seen);
    if (rc != 0) {
        return rc;
    }
    const char *key = seen->entries[seen->count - 1];
    for (size_t i = 0; i + 1 < seen->count; i++) {
        if (strcmp(seen->entries[i], key) == 0) {
            return fail(reader, key, "this key is there twice");
        }
    }
    return next(reader);
}

static int read_pairs(struct reader *reader, const char *what, value_fn value, void *context, struct list *seen)
{
    int rc = next(reader);
    while (rc == 0 && !at(reader, YAML_MAPPING_END_EVENT)) {
        rc = read_key(reader, what, seen);
        if (rc == 0) {
            rc = value(reader, seen->entries[seen->count - 1], context);
        }
        if (rc == 0) {
            rc = next(reader);
        }
    }
    return rc;
}

/* Calls `value` for every key of the mapping that begins here; a key that comes twice is an error. */
static int read_mapping(struct reader *reader, const char *what, value_fn value, void *context)
{
    int rc = expect(reader, YAML_MAPPING_START_EVENT, what, "a mapping of names to values");
    if (rc == 0) {
        struct list seen = { NULL, 0 };
        rc = read_pairs(reader, what, value, context, &seen);
        list_free(&seen);
    }
    return rc;
}

/* ---- format_options ------------------------------------------------------ */

struct text {
    FILE *file;
    char *data;
    size_t length;
};

static int read_option(struct reader *reader, const char *key, void *context)
{
    struct text *text = context;
    if (key[strcspn(key, "=,")] != '\0') {
        return fail(reader, key, "not an option's name");
    }
    int rc = expect_text(reader, key, "a single value");
    if (rc != 0) {
        return rc;
    }
    fprintf(text->file, "%s%s=", ftell(text->file) > 0 ? "," : "", key);
    for (const char *c = text_of(reader); *c != '\0'; c++) {
        fputs(*c == ',' ? ",," : (char[]){ *c, '\0' }, text->file);
    }
    return 0;
}

/* The options of one format as -o takes them, allocated. */
static int read_option_text(struct reader *reader, const char *key, char **out)
{
    struct text text = { NULL, NULL, 0 };
    text.file = open_memstream(&text.data, &text.length);
    if (text.file == NULL) {
        return fail_memory(reader);
    }
    int rc = read_mapping(reader, key, read_option, &text);
    bool written = ferror(text.file) == 0;
    written = fclose(text.file) == 0 && written;
    if (rc == 0 && !written) {
        rc = fail_memory(reader);
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

static int read_format(struct reader *reader, const char *key, void *context)
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
        return fail_memory(reader);
    }
    free(entry->options);
    entry->options = options;
    return 0;
}

/* ---- The keys ------------------------------------------------------------- */

static int read_module_dirs(struct reader *reader, const char *key)
{
    struct config *config = reader->config;
    return read_list(reader, key, folder_entry, &config->module_dirs, &config->module_dir_count);
}

static int read_disabled_modules(struct reader *reader, const char *key)
{
    struct config *config = reader->config;
    return read_list(reader, key, name_entry, &config->disabled_modules, &config->disabled_module_count);
}

static int read_allow_dirs(struct reader *reader, const char *key)
{
    struct config *config = reader->config;
    return read_list(reader, key, folder_entry, &config->allow_dirs, &config->allow_dir_count);
}

static int read_format_options(struct reader *reader, const char *key)
{
    return read_mapping(reader, key, read_format, NULL);
}

static int read_workers(struct reader *reader, const char *key)
{
    int rc = expect_text(reader, key, "a number");
    if (rc != 0) {
        return rc;
    }
    const char *text = text_of(reader);
    bool digits = is_plain(reader) && text[strspn(text, "0123456789")] == '\0';
    unsigned long value = digits && strlen(text) < 6 ? strtoul(text, NULL, 10) : 0;
    if (value < 1 || value > CONFIG_MAX_WORKERS) {
        return fail(reader, key, "'%s' is not a number from 1 to %d", text, CONFIG_MAX_WORKERS);
    }
    reader->config->workers = (unsigned)value;
    return 0;
}

static int read_references(struct reader *reader, const char *key)
{
    int rc = expect_text(reader, key, "beneath, any or none");
    if (rc == 0 && imgtk_reference_policy_parse(text_of(reader), &reader->config->references, NULL) != 0) {
        rc = fail(reader, key, "'%s' is not beneath, any or none", text_of(reader));
    }
    return rc;
}

static int read_untrusted(struct reader *reader, const char *key)
{
    static const char *const names[] = {
        [IMGTK_TRUSTED] = "no", [IMGTK_UNTRUSTED] = "yes", [IMGTK_UNTRUSTED_REQUIRED] = "require"
    };
    int rc = expect_text(reader, key, "no, yes or require");
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text_of(reader), names[i]) == 0) {
            reader->config->trust = (enum imgtk_trust)i;
            return 0;
        }
    }
    return fail(reader, key, "'%s' is not no, yes or require", text_of(reader));
}

static int read_bound(struct reader *reader, const char *key, uint64_t *out)
{
    int rc = expect_text(reader, key, "a size");
    if (rc != 0) {
        return rc;
    }
    struct imgtk_error err = IMGTK_ERROR_INIT;
    return imgtk_parse_size(text_of(reader), out, &err) ? fail(reader, key, "%s", err.message) : 0;
}

static int read_max_output(struct reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.output);
}

static int read_max_metadata(struct reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.metadata);
}

static int read_max_memory(struct reader *reader, const char *key)
{
    return read_bound(reader, key, &reader->config->budget.memory);
}

static int read_max_time(struct reader *reader, const char *key)
{
    int rc = expect_text(reader, key, "a number of seconds");
    if (rc != 0) {
        return rc;
    }
    const char *text = text_of(reader);
    if (text[strspn(text, "0123456789")] != '\0' || strlen(text) > 9) {
        return fail(reader, key, "'%s' is not a number of seconds", text);
    }
    reader->config->budget.seconds = strtoul(text, NULL, 10);
    return 0;
}

static const struct {
    const char *name;
    int (*read)(struct reader *reader, const char *key);
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

static int read_known_key(struct reader *reader, const char *key, void *context)
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
    return fail(reader, key, "unknown key; the known ones are %s", names);
}

/* ---- The file -------------------------------------------------------------- */

/* A file of comments alone has no document, or one that is nothing. */
static bool is_nothing(const struct reader *reader)
{
    return at(reader, YAML_SCALAR_EVENT) && is_plain(reader) && text_of(reader)[0] == '\0';
}

static int read_file(struct reader *reader)
{
    int rc = next(reader); /* the stream's start */
    if (rc == 0) {
        rc = next(reader);
    }
    if (rc != 0 || at(reader, YAML_STREAM_END_EVENT)) {
        return rc;
    }
    rc = next(reader);
    if (rc == 0 && !is_nothing(reader)) {
        rc = read_mapping(reader, "the configuration", read_known_key, NULL);
    }
    if (rc == 0) {
        rc = next(reader); /* the document's end */
    }
    if (rc == 0) {
        rc = next(reader);
    }
    return rc == 0 && !at(reader, YAML_STREAM_END_EVENT) ? fail(reader, "---", "a second document") : rc;
}

int config_parse(const char *name, const char *text, size_t length, struct config *config, struct imgtk_error *err)
{
    struct reader reader = { .name = name, .config = config, .err = err };
    if (!yaml_parser_initialize(&reader.parser)) {
        return fail_memory(&reader);
    }
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    int rc = read_file(&reader);
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return rc;
}
