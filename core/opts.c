#include "opts_shared.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTION_TEXT (64u << 10) /* a longer -o text is a mistake */

struct value {
    bool given;
    uint64_t number; /* BOOL, UINT, SIZE */
    char *text;      /* CHOICE, STRING */
};

struct imgtk_opts {
    const struct imgtk_opt *table;
    struct value *values; /* one per row */
};

/* ---- Near words ---------------------------------------------------------- */

#define MAX_WORD 40

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edit distance with '-' and '_' equal, since that is what people confuse. */
static size_t word_distance(const char *a, const char *b)
{
    size_t row[MAX_WORD + 1];
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > MAX_WORD || b_length > MAX_WORD)
        return MAX_WORD;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            char x = a[i - 1] == '_' ? '-' : a[i - 1];
            char y = b[j - 1] == '_' ? '-' : b[j - 1];
            size_t change = diagonal + (x != y);
            diagonal = row[j];
            row[j] = least(change, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

const char *imgtk_nearest_word(const char *word, const char *const *candidates)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2;
    for (; *candidates; candidates++) {
        size_t distance = word_distance(word, *candidates);
        if (distance < best_distance && distance < strlen(*candidates)) {
            best_distance = distance;
            best = *candidates;
        }
    }
    return best;
}

/* ---- Numbers ------------------------------------------------------------- */

static int digit_value(char c, unsigned base)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (base == 16 && isxdigit((unsigned char)c))
        return tolower((unsigned char)c) - 'a' + 10;
    return -1;
}

/* Reads digits; false when there is none or the number exceeds INT64_MAX. */
static bool parse_digits(const char **at, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    const char *p = *at;
    for (int digit; (digit = digit_value(*p, base)) >= 0; p++) {
        if (value > ((uint64_t)INT64_MAX - (uint64_t)digit) / base)
            return false;
        value = value * base + (uint64_t)digit;
    }
    if (p == *at)
        return false;
    *at = p;
    *out = value;
    return true;
}

/* ".5": the digits after the point; more than the first 15 cannot matter. */
static double parse_fraction(const char **at)
{
    double value = 0, scale = 1;
    for (const char *p = ++*at; *p >= '0' && *p <= '9'; p++) {
        *at = p + 1;
        if (scale < 1e15) {
            scale *= 10;
            value = value * 10 + (*p - '0');
        }
    }
    return value / scale;
}

static bool parse_unit(char c, unsigned *shift)
{
    static const char units[] = "bkmgtpe";
    const char *found = c ? strchr(units, tolower((unsigned char)c)) : NULL;
    *shift = found ? (unsigned)(found - units) * 10 : 0;
    return found != NULL;
}

static int fail_size(const char *text, struct imgtk_error *err)
{
    return imgtk_fail(err, IMGTK_EINVAL,
                      "Invalid size '%s': a number of bytes below 8E is expected, with an optional suffix k, M, G, T, "
                      "P or E", text);
}

int imgtk_parse_size(const char *text, uint64_t *out, struct imgtk_error *err)
{
    const char *p = text;
    uint64_t whole;
    double fraction = 0;
    unsigned shift = 0;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        p += 2;
        if (!parse_digits(&p, 16, &whole) || *p)
            return fail_size(text, err);
        *out = whole;
        return 0;
    }
    if (!parse_digits(&p, 10, &whole))
        return fail_size(text, err);
    bool has_point = *p == '.';
    if (has_point)
        fraction = parse_fraction(&p);
    bool has_unit = parse_unit(*p, &shift);
    p += has_unit;
    if (*p || (has_point && shift == 0) || whole > (uint64_t)INT64_MAX >> shift)
        return fail_size(text, err);
    uint64_t value = (whole << shift) + (uint64_t)(fraction * (double)((uint64_t)1 << shift) + 0.5);
    if (value > INT64_MAX)
        return fail_size(text, err);
    *out = value;
    return 0;
}

/* ---- One option ---------------------------------------------------------- */

static bool parse_bool(const char *text, uint64_t *out)
{
    static const char *const on[] = { "on", "true", "yes" };
    static const char *const off[] = { "off", "false", "no" };
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++) {
        if (strcmp(text, on[i]) == 0 || strcmp(text, off[i]) == 0) {
            *out = strcmp(text, on[i]) == 0;
            return true;
        }
    }
    return false;
}

static int check_bounds(const struct imgtk_opt *opt, const char *what, uint64_t value, struct imgtk_error *err)
{
    if (value < opt->min || (opt->max != 0 && value > opt->max))
        return imgtk_fail(err, IMGTK_EINVAL, "%s: %s is %llu, the limits are %llu and %llu", what, opt->name,
                          (unsigned long long)value, (unsigned long long)opt->min,
                          (unsigned long long)(opt->max ? opt->max : (uint64_t)INT64_MAX));
    return 0;
}

/* "zlib, zstd", as much as there is room for. */
#define LIST_SIZE 512
static void join_names(const char *const *names, char out[LIST_SIZE])
{
    size_t used = 0;
    out[0] = '\0';
    for (; *names; names++) {
        size_t length = strlen(*names);
        if (used + length + 3 > LIST_SIZE)
            break;
        if (used > 0) {
            memcpy(out + used, ", ", 2);
            used += 2;
        }
        memcpy(out + used, *names, length + 1);
        used += length;
    }
}

static int fail_choice(const struct imgtk_opt *opt, const char *what, const char *text, struct imgtk_error *err)
{
    char list[LIST_SIZE];
    join_names(opt->choices, list);
    return imgtk_fail(err, IMGTK_EINVAL, "%s: %s cannot be '%s', choose one of: %s", what, opt->name, text, list);
}

static bool is_choice(const struct imgtk_opt *opt, const char *text)
{
    for (const char *const *choice = opt->choices; *choice; choice++)
        if (strcmp(*choice, text) == 0)
            return true;
    return false;
}

static int parse_number(const struct imgtk_opt *opt, const char *what, const char *text, uint64_t *out,
                        struct imgtk_error *err)
{
    if (opt->type == IMGTK_OPT_BOOL) {
        if (!parse_bool(text, out))
            return imgtk_fail(err, IMGTK_EINVAL, "%s: %s expects 'on' or 'off', not '%s'", what, opt->name, text);
        return 0;
    }
    if (opt->type == IMGTK_OPT_SIZE) {
        if (imgtk_parse_size(text, out, err))
            return imgtk_fail_prefix(err, "%s: %s", what, opt->name);
    } else {
        const char *p = text;
        if (!parse_digits(&p, 10, out) || *p)
            return imgtk_fail(err, IMGTK_EINVAL, "%s: %s expects a number, not '%s'", what, opt->name, text);
    }
    return check_bounds(opt, what, *out, err);
}

static int set_text(const struct imgtk_opt *opt, const char *what, const char *text, struct value *value,
                    struct imgtk_error *err)
{
    if (opt->type == IMGTK_OPT_CHOICE && !is_choice(opt, text))
        return fail_choice(opt, what, text, err);
    char *copy = strdup(text);
    if (!copy)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the option %s", opt->name);
    free(value->text);
    value->text = copy;
    return 0;
}

static int set_value(const struct imgtk_opt *opt, const char *what, const char *text, struct value *value,
                     struct imgtk_error *err)
{
    if (opt->type == IMGTK_OPT_CHOICE || opt->type == IMGTK_OPT_STRING)
        return set_text(opt, what, text, value, err);
    uint64_t number;
    int status = parse_number(opt, what, text, &number, err);
    if (status == 0)
        value->number = number;
    return status;
}

/* ---- The set ------------------------------------------------------------- */

static size_t table_rows(const struct imgtk_opt *table)
{
    size_t rows = 0;
    while (table && table[rows].name)
        rows++;
    return rows;
}

struct imgtk_opts *imgtk_opts_new(const struct imgtk_opt *table)
{
    struct imgtk_opts *opts = calloc(1, sizeof *opts);
    if (!opts)
        return NULL;
    size_t rows = table_rows(table);
    opts->table = table;
    opts->values = calloc(rows + 1, sizeof *opts->values);
    if (!opts->values) {
        free(opts);
        return NULL;
    }
    for (size_t i = 0; i < rows; i++) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        const char *preset = table[i].default_text;
        if (preset && set_value(&table[i], "", preset, &opts->values[i], &err) == IMGTK_ENOMEM) {
            imgtk_opts_free(opts);
            return NULL;
        }
    }
    return opts;
}

void imgtk_opts_free(struct imgtk_opts *opts)
{
    if (!opts)
        return;
    for (size_t i = 0; i < table_rows(opts->table); i++)
        free(opts->values[i].text);
    free(opts->values);
    free(opts);
}

/* The row of that name, or the number of rows. */
static size_t find_row(const struct imgtk_opts *opts, const char *name)
{
    size_t rows = table_rows(opts->table);
    for (size_t i = 0; i < rows; i++)
        if (strcmp(opts->table[i].name, name) == 0)
            return i;
    return rows;
}

static int fail_unknown(const struct imgtk_opts *opts, const char *what, const char *name, struct imgtk_error *err)
{
    size_t rows = table_rows(opts->table);
    const char **names = calloc(rows + 1, sizeof *names);
    char list[LIST_SIZE] = "";
    const char *near = NULL;
    if (names) {
        for (size_t i = 0; i < rows; i++)
            names[i] = opts->table[i].name;
        near = imgtk_nearest_word(name, names);
        join_names(names, list);
        free(names);
    }
    if (near)
        return imgtk_fail(err, IMGTK_ENOTFOUND, "%s: unknown option '%s'; did you mean '%s'?", what, name, near);
    return imgtk_fail(err, IMGTK_ENOTFOUND, "%s: unknown option '%s' (%s%s)", what, name,
                      rows == 0 ? "there are none" : "known: ", list);
}

int imgtk_opts_set(struct imgtk_opts *opts, const char *what, const char *name, const char *value,
                   struct imgtk_error *err)
{
    size_t row = find_row(opts, name);
    if (!opts->table || !opts->table[row].name)
        return fail_unknown(opts, what, name, err);
    int status = set_value(&opts->table[row], what, value, &opts->values[row], err);
    if (status == 0)
        opts->values[row].given = true;
    return status;
}

static int set_bare(struct imgtk_opts *opts, const char *what, const char *name, struct imgtk_error *err)
{
    size_t row = find_row(opts, name);
    if (!opts->table || !opts->table[row].name)
        return fail_unknown(opts, what, name, err);
    if (opts->table[row].type != IMGTK_OPT_BOOL)
        return imgtk_fail(err, IMGTK_EINVAL, "%s: the option %s needs a value (%s=...)", what, name, name);
    return imgtk_opts_set(opts, what, name, "on", err);
}

/* Copies one "name=value" to `out`, each ",," as one comma; returns where the next begins. */
static const char *take_item(const char *text, char *out)
{
    for (; *text; text++) {
        if (*text == ',') {
            if (text[1] != ',') {
                text++;
                break;
            }
            text++;
        }
        *out++ = *text;
    }
    *out = '\0';
    return text;
}

int opts_parse_shared(struct imgtk_opts *opts, const char *what, const char *text,
                      bool (*is_foreign)(void *context, const char *name), void *context, struct imgtk_error *err)
{
    size_t length = strlen(text);
    if (length > MAX_OPTION_TEXT)
        return imgtk_fail(err, IMGTK_ELIMIT, "%s: the options are %zu bytes long, the limit is %u", what, length,
                          MAX_OPTION_TEXT);
    char *item = malloc(length + 1);
    if (!item)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for %zu bytes of options", length);
    int status = 0;
    while (*text && status == 0) {
        text = take_item(text, item);
        char *equals = strchr(item, '=');
        if (equals)
            *equals = '\0';
        bool known = find_row(opts, item) < table_rows(opts->table);
        if (!known && is_foreign && is_foreign(context, item))
            continue;
        if (equals)
            status = imgtk_opts_set(opts, what, item, equals + 1, err);
        else if (*item)
            status = set_bare(opts, what, item, err);
    }
    free(item);
    return status;
}

int imgtk_opts_parse(struct imgtk_opts *opts, const char *what, const char *text, struct imgtk_error *err)
{
    return opts_parse_shared(opts, what, text, NULL, NULL, err);
}

/* ---- Values -------------------------------------------------------------- */

static const struct value *value_of(const struct imgtk_opts *opts, const char *name, unsigned types)
{
    size_t row = find_row(opts, name);
    if (!opts->table || !opts->table[row].name || !(types & 1u << opts->table[row].type))
        return NULL;
    return &opts->values[row];
}

bool imgtk_opts_given(const struct imgtk_opts *opts, const char *name)
{
    const struct value *value = value_of(opts, name, ~0u);
    return value && value->given;
}

bool imgtk_opts_bool(const struct imgtk_opts *opts, const char *name)
{
    const struct value *value = value_of(opts, name, 1u << IMGTK_OPT_BOOL);
    return value && value->number != 0;
}

uint64_t imgtk_opts_number(const struct imgtk_opts *opts, const char *name)
{
    const struct value *value = value_of(opts, name, 1u << IMGTK_OPT_UINT | 1u << IMGTK_OPT_SIZE);
    return value ? value->number : 0;
}

const char *imgtk_opts_text(const struct imgtk_opts *opts, const char *name)
{
    const struct value *value = value_of(opts, name, 1u << IMGTK_OPT_CHOICE | 1u << IMGTK_OPT_STRING);
    return value ? value->text : NULL;
}

const struct imgtk_opt *imgtk_opts_table(const struct imgtk_opts *opts)
{
    return opts->table;
}
