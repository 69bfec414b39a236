/* Which driver an image's content belongs to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context/context.h"
#include "registry.h"

struct probe_bytes {
    uint8_t head[IMGTK_PROBE_SIZE], tail[IMGTK_PROBE_SIZE];
};

static int read_ends(struct imgtk_storage *file, struct probe_bytes *bytes, struct imgtk_probe *probe,
                     struct imgtk_error *err)
{
    memset(probe, 0, sizeof(*probe));
    probe->head = bytes->head;
    int status = imgtk_storage_pread_some(file, bytes->head, sizeof(bytes->head), 0, &probe->head_length, err);
    if (status || (imgtk_storage_flags(file) & IMGTK_STORAGE_SEQUENTIAL))
        return status;
    status = imgtk_storage_size(file, &probe->size, err);
    if (status)
        return status;
    uint64_t start = probe->size > sizeof(bytes->tail) ? probe->size - sizeof(bytes->tail) : 0;
    probe->tail = bytes->tail;
    return imgtk_storage_pread_some(file, bytes->tail, sizeof(bytes->tail), start, &probe->tail_length, err);
}

/* ---- By magic ------------------------------------------------------------ */

/* Which module to load first, and what no image may be taken for raw for want of. Offsets below 0 count from the end. */
static const struct { const char *format; int offset; const char *magic; size_t length; } known[] = {
    { "qcow2", 0, "QFI\xfb", 4 },
    { "vmdk", 0, "KDMV", 4 },
    { "vmdk", 0, "COWD", 4 },
    { "vmdk", 0, "# Disk DescriptorFile", 21 },
    { "vhdx", 0, "vhdxfile", 8 },
    { "vpc", 0, "conectix", 8 },
    { "vpc", -512, "conectix", 8 },
    { "vdi", 64, "\x7f\x10\xda\xbe", 4 },
};

static bool has_magic(const struct imgtk_probe *probe, size_t i)
{
    bool from_end = known[i].offset < 0;
    const uint8_t *bytes = from_end ? probe->tail : probe->head;
    size_t length = from_end ? probe->tail_length : probe->head_length;
    size_t offset = from_end ? (size_t)-known[i].offset : (size_t)known[i].offset;
    if (from_end ? offset > length : offset + known[i].length > length)
        return false;
    return memcmp(bytes + (from_end ? length - offset : offset), known[i].magic, known[i].length) == 0;
}

/* The only format whose magic is there; NULL: none or several. */
static const char *format_by_magic(const struct imgtk_probe *probe)
{
    const char *format = NULL;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (!has_magic(probe, i))
            continue;
        if (format && strcmp(format, known[i].format) != 0)
            return NULL;
        format = known[i].format;
    }
    return format;
}

/* One module instead of all; *out stays NULL when that does not settle it. */
static void ask_likely(struct imgtk_context *context, const struct imgtk_probe *probe, const struct imgtk_driver **out)
{
    const struct imgtk_driver *driver;
    struct imgtk_error ignored = IMGTK_ERROR_INIT;
    const char *format = format_by_magic(probe);
    if (format && imgtk_driver_find(context, format, &driver, &ignored) == 0 && driver->probe(probe) == IMGTK_PROBE_YES)
        *out = driver;
}

/* ---- By asking all ------------------------------------------------------- */

struct candidates {
    const struct imgtk_driver *first;
    size_t count;
    char names[256];
};

static void add_candidate(struct candidates *list, const struct imgtk_driver *driver)
{
    size_t used = strlen(list->names);
    snprintf(list->names + used, sizeof(list->names) - used, "%s%s", list->count ? ", " : "", driver->name);
    if (list->count++ == 0)
        list->first = driver;
}

static int choose(const struct imgtk_context *context, const struct candidates *list, const struct imgtk_driver **out,
                  struct imgtk_error *err)
{
    if (list->count > 1)
        return imgtk_fail(err, IMGTK_EINVAL, "ambiguous format: its content fits %s%s", list->names,
                          context->config.trust == IMGTK_TRUSTED ? ": name one with -f" : ", which --untrusted refuses");
    *out = list->first;
    return 0;
}

static int ask_all(struct imgtk_context *context, const struct imgtk_probe *probe, const struct imgtk_driver **out,
                   struct imgtk_error *err)
{
    struct candidates yes = { 0 }, maybe = { 0 };
    const struct imgtk_module *modules;
    size_t count;
    registry_formats(context, &modules, &count);
    for (size_t i = 0; i < count; i++) {
        if (modules[i].skipped) /* its images will be taken for raw ones */
            context_note(context, "module %s is skipped: %s", modules[i].path, modules[i].skipped);
        if (!modules[i].driver)
            continue;
        enum imgtk_probe_result answer = modules[i].driver->probe(probe);
        if (answer == IMGTK_PROBE_YES)
            add_candidate(&yes, modules[i].driver);
        else if (answer == IMGTK_PROBE_MAYBE)
            add_candidate(&maybe, modules[i].driver);
    }
    return choose(context, yes.count ? &yes : &maybe, out, err);
}

/* ---- Formats whose module is not there ----------------------------------- */

/* The module of that name that is there and cannot be used; NULL: there is none, or it can. */
static const struct imgtk_module *find_skipped(struct imgtk_context *context, const char *format)
{
    const struct imgtk_module *modules;
    size_t count;
    if (imgtk_modules(context, &modules, &count, NULL) != 0)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (modules[i].skipped && strcmp(modules[i].name, format) == 0)
            return &modules[i];
    return NULL;
}

static int fail_missing(struct imgtk_context *context, const char *format, struct imgtk_error *err)
{
    const struct imgtk_module *skipped = find_skipped(context, format);
    if (skipped)
        return imgtk_fail(err, IMGTK_ENOTFOUND,
                          "it looks like %s, and the module %s cannot be used: %s; name the format with -f, raw if it is",
                          format, skipped->path, skipped->skipped);
    return imgtk_fail(err, IMGTK_ENOTFOUND,
                      "it looks like %s, which no installed module reads: install imgtk-format-%s, or name the format "
                      "with -f, raw if it is", format, format);
}

/* Only for formats without a usable module: where there is one, its own probe has the say. */
static int refuse_missing(struct imgtk_context *context, const struct imgtk_probe *probe, struct imgtk_error *err)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const struct imgtk_driver *driver;
        struct imgtk_error ignored = IMGTK_ERROR_INIT;
        if (has_magic(probe, i) && imgtk_driver_find(context, known[i].format, &driver, &ignored))
            return fail_missing(context, known[i].format, err);
    }
    return 0;
}

int imgtk_driver_probe(struct imgtk_context *context, struct imgtk_storage *file, const struct imgtk_driver **out,
                       bool *guessed, struct imgtk_error *err)
{
    struct probe_bytes *bytes = malloc(sizeof(*bytes));
    if (!bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    struct imgtk_probe probe;
    *out = NULL;
    int status = read_ends(file, bytes, &probe, err);
    if (!status && context->config.trust == IMGTK_TRUSTED) /* else nobody may be left out: it could fit two */
        ask_likely(context, &probe, out);
    if (!status && !*out)
        status = ask_all(context, &probe, out, err);
    if (!status && !*out)
        status = refuse_missing(context, &probe, err);
    free(bytes);
    if (status)
        return status;
    *guessed = *out == NULL;
    return *out ? 0 : imgtk_driver_find(context, "raw", out, err);
}
