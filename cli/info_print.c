#include <stdio.h>
#include <string.h>
#include <time.h>

#include "info_report.h"
#include "output.h"

static void print_field(const char *key, const char *value)
{
    printf("%s: ", key);
    cli_print_text(value);
    putchar('\n');
}

/* "virtual size: 10 MiB (10485760 bytes)" */
static void print_size(const char *key, uint64_t bytes, bool exact)
{
    char text[CLI_SIZE_TEXT];
    cli_format_size(bytes, text);
    printf("%s: %s", key, text);
    if (exact)
        printf(" (%llu bytes)", (unsigned long long)bytes);
    putchar('\n');
}

/* ---- Snapshots ------------------------------------------------------------ */

struct snapshot {
    const char *id, *name;
    int64_t state_size, date, clock_seconds, clock_nanoseconds, icount;
    bool has_icount;
};

static int take_snapshot_field(void *context, const struct imgtk_info_value *value)
{
    struct snapshot *snapshot = context;
    if (strcmp(value->key, "id") == 0)
        snapshot->id = value->text;
    else if (strcmp(value->key, "name") == 0)
        snapshot->name = value->text;
    else if (strcmp(value->key, "vm-state-size") == 0)
        snapshot->state_size = value->number;
    else if (strcmp(value->key, "date-sec") == 0)
        snapshot->date = value->number;
    else if (strcmp(value->key, "vm-clock-sec") == 0)
        snapshot->clock_seconds = value->number;
    else if (strcmp(value->key, "vm-clock-nsec") == 0)
        snapshot->clock_nanoseconds = value->number;
    else if (strcmp(value->key, "icount") == 0) {
        snapshot->icount = value->number;
        snapshot->has_icount = true;
    }
    return 0;
}

/* Text padded to `width` columns, with control characters replaced. */
static void print_padded(const char *text, int width)
{
    int length = text ? (int)strlen(text) : 0;
    if (text)
        cli_print_text(text);
    printf("%*s", length < width ? width - length : 0, "");
}

static int print_snapshot(void *context, const struct imgtk_info_value *value)
{
    const struct imgtk_info *tree = context;
    struct snapshot snapshot = { 0 };
    char size[CLI_SIZE_TEXT], date[32] = "", clock[32], icount[24] = "";
    struct tm when;
    imgtk_info_members(tree, value->node, take_snapshot_field, &snapshot);
    time_t seconds = (time_t)snapshot.date;
    if (localtime_r(&seconds, &when))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &when);
    cli_format_size((uint64_t)snapshot.state_size, size);
    snprintf(clock, sizeof clock, "%02lld:%02d:%02d.%03d", (long long)(snapshot.clock_seconds / 3600),
             (int)(snapshot.clock_seconds / 60 % 60), (int)(snapshot.clock_seconds % 60),
             (int)(snapshot.clock_nanoseconds / 1000000));
    if (snapshot.has_icount)
        snprintf(icount, sizeof icount, "%lld", (long long)snapshot.icount);
    print_padded(snapshot.id, 9);
    putchar(' ');
    print_padded(snapshot.name, 16);
    printf(" %8s%20s%13s%11s\n", size, date, clock, icount);
    return 0;
}

void info_print_snapshots(struct imgtk_info *tree)
{
    if (imgtk_info_empty(tree))
        return;
    printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    imgtk_info_members(tree, NULL, print_snapshot, tree);
}

/* ---- What only the format knows ------------------------------------------- */

struct nesting {
    const struct imgtk_info *tree;
    int indent;
    unsigned index; /* of the next list member */
};

/* "lazy-refcounts" reads as "lazy refcounts". */
static void print_key(const struct imgtk_info_value *value, struct nesting *nesting)
{
    printf("%*s", nesting->indent, "");
    if (!value->key)
        printf("[%u]", nesting->index++);
    else
        for (const char *c = value->key; *c; c++)
            putchar(*c == '-' ? ' ' : *c);
}

static int print_specific(void *context, const struct imgtk_info_value *value)
{
    struct nesting *nesting = context;
    struct nesting inner = { nesting->tree, nesting->indent + 4, 0 };
    print_key(value, nesting);
    switch (value->kind) {
    case IMGTK_INFO_TEXT:
        fputs(": ", stdout);
        cli_print_text(value->text);
        putchar('\n');
        break;
    case IMGTK_INFO_NUMBER:
        printf(": %lld\n", (long long)value->number);
        break;
    case IMGTK_INFO_BOOL:
        printf(": %s\n", value->truth ? "true" : "false");
        break;
    case IMGTK_INFO_LIST:
    case IMGTK_INFO_OBJECT:
        puts(":");
        imgtk_info_members(nesting->tree, value->node, print_specific, &inner);
        break;
    }
    return 0;
}

static void print_format_specific(const struct imgtk_info *tree)
{
    struct nesting nesting = { tree, 4, 0 };
    if (imgtk_info_empty(tree))
        return;
    puts("Format specific information:");
    imgtk_info_members(tree, NULL, print_specific, &nesting);
}

/* ---- The report ----------------------------------------------------------- */

static void print_backing(const struct info_report *report)
{
    fputs("backing file: ", stdout);
    cli_print_text(report->backing.names[0]);
    if (strcmp(report->backing.names[0], report->full_backing) != 0) {
        fputs(" (actual path: ", stdout);
        cli_print_text(report->full_backing);
        putchar(')');
    }
    putchar('\n');
    if (report->backing.format)
        print_field("backing file format", report->backing.format);
}

static void print_child(const struct info_report *report)
{
    puts("Child node '/file':");
    print_field("    filename", imgtk_storage_name(report->layer->file));
    print_field("    protocol type", report->protocol);
    if (report->has_length)
        print_size("    file length", report->length, true);
    if (report->has_occupied)
        print_size("    disk size", report->occupied, false);
}

void info_report_print(const struct info_report *report)
{
    const struct imgtk_layer_info *about = &report->about;
    print_field("image", report->layer->name);
    print_field("file format", report->layer->driver->name);
    print_size("virtual size", report->layer->size, true);
    if (report->has_occupied)
        print_size("disk size", report->occupied, false);
    else
        print_field("disk size", "unavailable");
    if (about->encrypted)
        print_field("encrypted", "yes");
    if (about->cluster_size)
        printf("cluster_size: %llu\n", (unsigned long long)about->cluster_size);
    if (about->dirty)
        print_field("cleanly shut down", "no");
    if (report->full_backing)
        print_backing(report);
    info_print_snapshots(about->snapshots);
    print_format_specific(about->specific);
    print_child(report);
}
