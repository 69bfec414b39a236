#include "info_report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "source.h"

static const char *protocol_of(const struct imgtk_storage *file)
{
    struct stat status;
    const char *name = imgtk_storage_name(file);
    if ((strncmp(name, "nbd", 3) == 0 && strchr(name, ':')) || strncmp(name, "[ ", 2) == 0)
        return "nbd";
    if (strncmp(name, "http", 4) == 0 && strchr(name, ':'))
        return strncmp(name, "https:", 6) == 0 ? "https" : "http";
    return stat(name, &status) == 0 && S_ISBLK(status.st_mode) ? "host_device" : "file";
}

int info_report_make(const struct imgtk_layer *layer, struct info_report *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof *out);
    out->layer = layer;
    int status = imgtk_layer_describe(layer, &out->about, err);
    if (status == 0)
        status = layer->driver->backing(layer->handle, &out->backing, err);
    if (status)
        return imgtk_fail_prefix(err, "%s", layer->name);
    if (out->backing.names[0]) {
        out->full_backing = source_resolve(layer->name, out->backing.names[0]);
        if (!out->full_backing)
            return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    out->protocol = protocol_of(layer->file);
    out->has_length = imgtk_storage_size(layer->file, &out->length, NULL) == 0;
    out->has_occupied = imgtk_storage_allocated(layer->file, &out->occupied, NULL) == 0;
    return 0;
}

void info_report_free(struct info_report *report)
{
    imgtk_info_free(report->about.specific);
    imgtk_info_free(report->about.snapshots);
    free(report->full_backing);
}

/* The storage as qemu-img shows it: a node below the format's. */
static void add_child(const struct info_report *report, struct imgtk_info *info)
{
    imgtk_info_begin_object(info, NULL);
    imgtk_info_text(info, "name", "file");
    imgtk_info_begin_object(info, "info");
    imgtk_info_begin_list(info, "children");
    imgtk_info_end(info);
    if (report->has_length)
        imgtk_info_number(info, "virtual-size", report->length);
    imgtk_info_text(info, "filename", imgtk_storage_name(report->layer->file));
    imgtk_info_text(info, "format", report->protocol);
    if (report->has_occupied)
        imgtk_info_number(info, "actual-size", report->occupied);
    imgtk_info_begin_object(info, "format-specific");
    imgtk_info_text(info, "type", report->protocol);
    imgtk_info_begin_object(info, "data");
    imgtk_info_end(info);
    imgtk_info_end(info);
    imgtk_info_bool(info, "dirty-flag", false);
    imgtk_info_end(info);
    imgtk_info_end(info);
}

void info_report_add(const struct info_report *report, struct imgtk_info *info)
{
    const struct imgtk_layer_info *about = &report->about;
    imgtk_info_begin_list(info, "children");
    add_child(report, info);
    imgtk_info_end(info);
    if (!imgtk_info_empty(about->snapshots))
        imgtk_info_add(info, "snapshots", about->snapshots);
    if (report->backing.format && report->full_backing)
        imgtk_info_text(info, "backing-filename-format", report->backing.format);
    imgtk_info_number(info, "virtual-size", report->layer->size);
    imgtk_info_text(info, "filename", report->layer->name);
    if (about->cluster_size)
        imgtk_info_number(info, "cluster-size", about->cluster_size);
    imgtk_info_text(info, "format", report->layer->driver->name);
    if (report->has_occupied)
        imgtk_info_number(info, "actual-size", report->occupied);
    if (about->encrypted)
        imgtk_info_bool(info, "encrypted", true);
    if (about->compressed)
        imgtk_info_bool(info, "compressed", true);
    if (!imgtk_info_empty(about->specific)) {
        imgtk_info_begin_object(info, "format-specific");
        imgtk_info_text(info, "type", report->layer->driver->name);
        imgtk_info_add(info, "data", about->specific);
        imgtk_info_end(info);
    }
    if (report->full_backing) {
        imgtk_info_text(info, "full-backing-filename", report->full_backing);
        imgtk_info_text(info, "backing-filename", report->backing.names[0]);
    }
    imgtk_info_bool(info, "dirty-flag", about->dirty);
}
