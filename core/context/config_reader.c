#include "config_reader.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int config_fail(const struct config_reader *reader, const char *key, const char *format, ...)
{
    char what[IMGTK_MESSAGE_SIZE / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return imgtk_fail(reader->err, IMGTK_EINVAL, "%s:%zu: %s: %s", reader->name,
                      reader->event.start_mark.line + 1, key, what);
}

int config_fail_memory(const struct config_reader *reader)
{
    return imgtk_fail(reader->err, IMGTK_ENOMEM, "out of memory for the configuration");
}

static int fail_syntax(const struct config_reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return config_fail_memory(reader);
    }
    size_t line = parser->error == YAML_READER_ERROR ? parser->mark.line : parser->problem_mark.line;
    return imgtk_fail(reader->err, IMGTK_EINVAL, "%s:%zu: not valid YAML: %s", reader->name, line + 1,
                      parser->problem != NULL ? parser->problem : "unknown fault");
}

int config_next(struct config_reader *reader)
{
    yaml_event_delete(&reader->event);
    return yaml_parser_parse(&reader->parser, &reader->event) ? 0 : fail_syntax(reader);
}

bool config_at(const struct config_reader *reader, yaml_event_type_t type)
{
    return reader->event.type == type;
}

const char *config_text(const struct config_reader *reader)
{
    return (const char *)reader->event.data.scalar.value;
}

bool config_is_plain(const struct config_reader *reader)
{
    return reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static const char *found(const struct config_reader *reader)
{
    switch (reader->event.type) {
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_ALIAS_EVENT:
        return "an alias, which is not taken here";
    case YAML_SCALAR_EVENT:
        return config_is_plain(reader) && config_text(reader)[0] == '\0' ? "nothing" : "a single value";
    default:
        return "the end";
    }
}

static int expect(const struct config_reader *reader, yaml_event_type_t type, const char *key, const char *what)
{
    return config_at(reader, type) ? 0 : config_fail(reader, key, "must be %s, not %s", what, found(reader));
}

int config_expect_text(const struct config_reader *reader, const char *key, const char *what)
{
    int rc = expect(reader, YAML_SCALAR_EVENT, key, what);
    if (rc != 0) {
        return rc;
    }
    size_t length = reader->event.data.scalar.length;
    if (length == 0) {
        return config_fail(reader, key, "must be %s, not nothing", what);
    }
    if (length >= PATH_MAX || strlen(config_text(reader)) != length) {
        return config_fail(reader, key, "%s", length >= PATH_MAX ? "the text is too long" : "the text holds a NUL");
    }
    return 0;
}

/* ---- Lists of text ------------------------------------------------------ */

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

static int append_entry(const struct config_reader *reader, const char *key, config_entry_fn entry, struct list *list)
{
    if (list->count == CONFIG_MAX_ENTRIES) {
        return config_fail(reader, key, "more than %d entries", CONFIG_MAX_ENTRIES);
    }
    char **entries = realloc(list->entries, (list->count + 1) * sizeof(*entries));
    if (entries == NULL) {
        return config_fail_memory(reader);
    }
    list->entries = entries;
    int rc = entry(reader, key, &entries[list->count]);
    if (rc == 0) {
        list->count++;
    }
    return rc;
}

static int read_entries(struct config_reader *reader, const char *key, config_entry_fn entry, struct list *list)
{
    int rc = expect(reader, YAML_SEQUENCE_START_EVENT, key, "a list");
    if (rc == 0) {
        rc = config_next(reader);
    }
    while (rc == 0 && !config_at(reader, YAML_SEQUENCE_END_EVENT)) {
        rc = append_entry(reader, key, entry, list);
        if (rc == 0) {
            rc = config_next(reader);
        }
    }
    return rc;
}

int config_read_list(struct config_reader *reader, const char *key, config_entry_fn entry, char ***entries,
                     size_t *count)
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

static int key_entry(const struct config_reader *reader, const char *key, char **out)
{
    int rc = config_expect_text(reader, key, "a mapping of names to values");
    if (rc != 0) {
        return rc;
    }
    *out = strdup(config_text(reader));
    return *out == NULL ? config_fail_memory(reader) : 0;
}

/* Adds the key that the event holds to those seen. */
static int read_key(struct config_reader *reader, const char *what, struct list *seen)
{
    int rc = append_entry(reader, what, key_entry, seen);
    if (rc != 0) {
        return rc;
    }
    const char *key = seen->entries[seen->count - 1];
    for (size_t i = 0; i + 1 < seen->count; i++) {
        if (strcmp(seen->entries[i], key) == 0) {
            return config_fail(reader, key, "this key is there twice");
        }
    }
    return config_next(reader);
}

static int read_pairs(struct config_reader *reader, const char *what, config_value_fn value, void *context,
                      struct list *seen)
{
    int rc = config_next(reader);
    while (rc == 0 && !config_at(reader, YAML_MAPPING_END_EVENT)) {
        rc = read_key(reader, what, seen);
        if (rc == 0) {
            rc = value(reader, seen->entries[seen->count - 1], context);
        }
        if (rc == 0) {
            rc = config_next(reader);
        }
    }
    return rc;
}

int config_read_mapping(struct config_reader *reader, const char *what, config_value_fn value, void *context)
{
    int rc = expect(reader, YAML_MAPPING_START_EVENT, what, "a mapping of names to values");
    if (rc == 0) {
        struct list seen = { NULL, 0 };
        rc = read_pairs(reader, what, value, context, &seen);
        list_free(&seen);
    }
    return rc;
}
