#ifndef IMGTK_NBDKIT_PLUGIN_H
#define IMGTK_NBDKIT_PLUGIN_H

#include <stdlib.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <imgtk/error.h>

/* Tells nbdkit, with "what: " before the message where what is not NULL. Returns -1. */
int plugin_fail(const char *what, const struct imgtk_error *err);

#endif
