/*
 * Bytes of local files, looked at where the page cache has them. Internal to core.
 *
 * Reading copies bytes into a buffer, and writing copies them from there into another file. Who only passes them on
 * writes them out of a mapping instead, which copies them once. Only what is in the page cache already is mapped: from a
 * disk, read() brings it there in longer steps.
 */
#ifndef IMGTK_CORE_STORAGE_VIEW_H
#define IMGTK_CORE_STORAGE_VIEW_H

#include <pthread.h>
#include <stdatomic.h>

#include "imgtk/storage.h"

/* A mapped part of a file, which the views of several threads may share. */
struct view_window {
    struct imgtk_storage *file; /* NULL: nothing is mapped */
    uint8_t *bytes;
    uint64_t offset; /* in the file; that and length are whole pages */
    size_t length;
    int guard;       /* its number, see mapping_guard.h */
    unsigned views;  /* how many look at it */
    size_t forgotten; /* its beginning that is not in the tables of the process, but for what was touched since */
};

enum { VIEW_WINDOWS = 6 };

/* Those of one job. Files must outlive it. */
struct views {
    atomic_bool wanted; /* and possible */
    pthread_mutex_t lock; /* of what follows; a leaf */
    struct view_window windows[VIEW_WINDOWS];
    unsigned next; /* the window that is given up next, if nobody looks at it */
};

struct view {
    const uint8_t *bytes; /* NULL: none */
    uint64_t offset;      /* in the file */
    size_t length;
    struct view_window *window;
};

void views_init(struct views *views, bool wanted);
void views_destroy(struct views *views);
/*
 * Looks at bytes of a file: true, or false: they have to be read. Others may change them at any time, so what would be
 * confused by that (a compressor) must not be given them. Thread-safe.
 */
bool views_take(struct views *views, struct imgtk_storage *file, uint64_t offset, size_t length, struct view *out);
/* Reads over all of it, so that it is in the cache that CPUs share before another one needs it. */
void view_warm(const struct view *view);
/*
 * IMGTK_ECORRUPT: the file lost bytes meanwhile, so that what was seen is not to be trusted. gone: somebody knows already,
 * the kernel having refused to read them. Without a view: 0. Thread-safe.
 */
int views_give_back(struct views *views, struct view *view, bool gone, struct imgtk_error *err);

#endif
