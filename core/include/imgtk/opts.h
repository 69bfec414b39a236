/*
 * Options as tables: a driver, a storage or a command declares its options
 * once, and parsing, `-o help`, completion and the manual all come from that
 * table.
 */
#ifndef IMGTK_OPTS_H
#define IMGTK_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum imgtk_opt_type {
    IMGTK_OPT_BOOL,   /* on|off (also true|false, yes|no) */
    IMGTK_OPT_UINT,   /* a decimal number, min <= value <= max */
    IMGTK_OPT_SIZE,   /* bytes with an optional suffix b, k, M, G, T, P, E (powers of 1024, any case) */
    IMGTK_OPT_CHOICE, /* one of `choices` */
    IMGTK_OPT_STRING
};

/* One row; a table ends with a row whose name is NULL. All pointers are static. */
struct imgtk_opt {
    const char *name;
    enum imgtk_opt_type type;
    const char *default_text;     /* as a user would write it; NULL: unset unless given */
    const char *const *choices;   /* CHOICE: NULL-terminated; else NULL */
    uint64_t min, max;            /* UINT and SIZE; max 0: no bound */
    const char *help;             /* one line, no full stop */
};

/* The values of one table. Reading it from several threads is safe, setting is not. */
struct imgtk_opts;

/* `table` may be NULL (no options) and must outlive the result. Never fails but for memory (NULL). */
IMGTK_API struct imgtk_opts *imgtk_opts_new(const struct imgtk_opt *table);
IMGTK_API void imgtk_opts_free(struct imgtk_opts *opts);

/*
 * Parses "name=value,name=value"; ",," in a value is one comma; a bare BOOL
 * name means on. `what` names the table in messages ("qcow2"). An unknown name
 * is IMGTK_ENOTFOUND and names the nearest known one where there is one. A name
 * set twice keeps the last value.
 */
IMGTK_API int imgtk_opts_parse(struct imgtk_opts *opts, const char *what, const char *text, struct imgtk_error *err);
IMGTK_API int imgtk_opts_set(struct imgtk_opts *opts, const char *what, const char *name, const char *value,
                             struct imgtk_error *err);

/* Values; the name must be in the table with that type (a programming error otherwise: returns 0/NULL/false). */
IMGTK_API bool imgtk_opts_given(const struct imgtk_opts *opts, const char *name);
IMGTK_API bool imgtk_opts_bool(const struct imgtk_opts *opts, const char *name);
IMGTK_API uint64_t imgtk_opts_number(const struct imgtk_opts *opts, const char *name); /* UINT, SIZE */
/* CHOICE, STRING; NULL: unset */
IMGTK_API const char *imgtk_opts_text(const struct imgtk_opts *opts, const char *name);

/* The table behind the set, or NULL. */
IMGTK_API const struct imgtk_opt *imgtk_opts_table(const struct imgtk_opts *opts);

/*
 * "64k", "1.5G", "0x10000", "10737418240": bytes. Rejects negative numbers, trailing garbage and values above
 * INT64_MAX.
 */
IMGTK_API int imgtk_parse_size(const char *text, uint64_t *out, struct imgtk_error *err);

/* The candidate (of a NULL-terminated list) that a misspelt word most likely means, or NULL when none is near. */
IMGTK_API const char *imgtk_nearest_word(const char *word, const char *const *candidates);

#ifdef __cplusplus
}
#endif
#endif
