/* What the parameters of `nbdkit imgtk` ask for. */
#ifndef IMGTK_NBDKIT_SETTINGS_H
#define IMGTK_NBDKIT_SETTINGS_H

#include <imgtk/image.h>

#define SETTINGS_HELP \
    "[file=]FILE                   (required) The image: a path, or another name that imgtk takes.\n" \
    "format=FMT                    Its format (by its content).\n" \
    "backing-format=FMT            Format of a backing file where the image does not record it.\n" \
    "snapshot=SNAPSHOT             Serve that internal snapshot: its name or id.\n" \
    "options=NAME=VALUE,...        Options of the format.\n" \
    "storage-opts=NAME=VALUE,...   Options of network storages.\n" \
    "references=beneath|any|none   Which files the image may name (beneath).\n" \
    "allow-dir=DIR                 It may also name files beneath DIR; may be given several times."

/* Strings live as long as nbdkit. */
struct settings {
    const char *file;
    struct imgtk_image_request request;
};

/* One parameter. 0, or -1 when nbdkit has been told what is wrong with it. */
int settings_take(struct settings *settings, struct imgtk_context *context, const char *key, const char *value);

#endif
