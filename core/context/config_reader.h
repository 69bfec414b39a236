/* The YAML of an imgtk.yaml, event by event: the schema in config_parse.c drives it. Internal to core. */
#ifndef IMGTK_CORE_CONTEXT_CONFIG_READER_H
#define IMGTK_CORE_CONTEXT_CONFIG_READER_H

#include <yaml.h>

#include "config.h"

struct config_reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    const char *name;
    struct config *config;
    struct imgtk_error *err;
};

/* "FILE:LINE: KEY: what", and that there is no memory. Return the status. */
int config_fail(const struct config_reader *reader, const char *key, const char *format, ...) IMGTK_PRINTF(3, 4);
int config_fail_memory(const struct config_reader *reader);

/* Goes on to the next event. */
int config_next(struct config_reader *reader);
bool config_at(const struct config_reader *reader, yaml_event_type_t type);

/* The event is a scalar with text that a C string can hold; `what` says what was expected. */
int config_expect_text(const struct config_reader *reader, const char *key, const char *what);
/* Its text, and whether that is without quotes. */
const char *config_text(const struct config_reader *reader);
bool config_is_plain(const struct config_reader *reader);

/* Turns the event's text into a list's entry. */
typedef int (*config_entry_fn)(const struct config_reader *reader, const char *key, char **out);
/* Replaces the list at *entries, which an earlier file may have set. */
int config_read_list(struct config_reader *reader, const char *key, config_entry_fn entry, char ***entries,
                     size_t *count);

/* Reads the value of `key`; the event is its first, and its last when this returns. */
typedef int (*config_value_fn)(struct config_reader *reader, const char *key, void *context);
/* Calls `value` for every key of the mapping that begins here; a key that comes twice is an error. */
int config_read_mapping(struct config_reader *reader, const char *what, config_value_fn value, void *context);

#endif
