/* What info tells about one layer, as a tree and as text. */
#ifndef IMGTK_CLI_INFO_REPORT_H
#define IMGTK_CLI_INFO_REPORT_H

#include <imgtk/info.h>

struct info_report {
    const struct imgtk_layer *layer;
    struct imgtk_layer_info about;
    struct imgtk_backing backing;
    char *full_backing;          /* the backing file's name as seen from the working folder; NULL: none */
    const char *protocol;        /* "file", "host_device", a scheme */
    bool has_length, has_occupied;
    uint64_t length, occupied;   /* of the storage, bytes */
};

/* Fails with the layer's name in the message. Free with info_report_free() in any case. */
int info_report_make(const struct imgtk_layer *layer, struct info_report *out, struct imgtk_error *err);
void info_report_free(struct info_report *report);

/* Adds the report's members to the object that is open in `info`. */
void info_report_add(const struct info_report *report, struct imgtk_info *info);
void info_report_print(const struct info_report *report);
/* The table of the snapshots that a layer has; nothing when it has none. */
void info_print_snapshots(struct imgtk_info *snapshots);

#endif
