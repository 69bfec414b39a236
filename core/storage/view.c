#include "storage/view.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "imgtk/bytes.h"
#include "storage/file.h"
#include "storage/mapping_guard.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define WINDOW_SIZE (32u << 20) /* mapping and unmapping, during which nobody else can look, are rare then */
#define LOOKED_AT (4u << 20)    /* stays in the tables behind a view: to take out its neighbours' pages delays who reads on */
#define CACHE_LINE 64u

static uint64_t page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* NULL: not a regular file. */
static struct file *local_file(const struct imgtk_storage *storage)
{
    struct file *file = storage->ops.pread == file_ops.pread ? storage->handle : NULL;
    return file && !file->device ? file : NULL;
}

void views_init(struct views *views, bool wanted)
{
    *views = (struct views){ .next = 0 };
    atomic_init(&views->wanted, wanted && mapping_guard_stands());
    pthread_mutex_init(&views->lock, NULL);
}

static void unmap(struct view_window *window)
{
    if (!window->file)
        return;
    mapping_guard_remove(window->guard);
    munmap(window->bytes, window->length);
    window->file = NULL;
}

void views_destroy(struct views *views)
{
    for (unsigned i = 0; i < VIEW_WINDOWS; i++)
        unmap(&views->windows[i]);
    pthread_mutex_destroy(&views->lock);
}

/* ---- Windows: the lock is held ------------------------------------------------- */

static bool covers(const struct view_window *window, const struct imgtk_storage *file, uint64_t offset, size_t length)
{
    return window->file == file && offset >= window->offset &&
           imgtk_range_fits(offset - window->offset, length, window->length);
}

static bool map(struct view_window *window, struct imgtk_storage *file, uint64_t offset, size_t length)
{
    uint64_t size = 0, start = imgtk_round_down(offset, page_size());
    if (imgtk_storage_size(file, &size, NULL) || !imgtk_range_fits(offset, length, size))
        return false;
    window->length = (size_t)imgtk_min_u64(WINDOW_SIZE, imgtk_round_up(size, page_size()) - start);
    if (!imgtk_range_fits(offset - start, length, window->length))
        return false;
    void *bytes = mmap(NULL, window->length, PROT_READ, MAP_SHARED, file->ops.fd(file->handle), (off_t)start);
    if (bytes == MAP_FAILED)
        return false;
    window->guard = mapping_guard_add(bytes, window->length);
    if (window->guard < 0) {
        munmap(bytes, window->length);
        return false;
    }
    window->file = file;
    window->bytes = bytes;
    window->offset = start;
    window->forgotten = 0;
    return true;
}

static struct view_window *find_window(struct views *views, struct imgtk_storage *file, uint64_t offset, size_t length)
{
    for (unsigned i = 0; i < VIEW_WINDOWS; i++)
        if (covers(&views->windows[i], file, offset, length))
            return &views->windows[i];
    for (unsigned tried = 0; tried < VIEW_WINDOWS; tried++) {
        struct view_window *window = &views->windows[views->next];
        views->next = (views->next + 1) % VIEW_WINDOWS;
        if (window->views > 0)
            continue;
        unmap(window);
        return map(window, file, offset, length) ? window : NULL;
    }
    return NULL;
}

/* ---- Views ------------------------------------------------------------------------ */

static struct view_window *hold_window(struct views *views, struct imgtk_storage *file, uint64_t offset, size_t length)
{
    pthread_mutex_lock(&views->lock);
    struct view_window *window = find_window(views, file, offset, length);
    if (window)
        window->views++;
    pthread_mutex_unlock(&views->lock);
    return window;
}

/*
 * Out of the tables of this process, of whose memory it counts as a part, goes what lies well behind the view; with the
 * last view all does. A view in there gets its pages back when they are touched.
 */
static void forget(struct view_window *window, uint64_t offset)
{
    size_t at = (size_t)(imgtk_round_down(offset, page_size()) - window->offset), start = window->forgotten;
    if (window->views == 0) {
        madvise(window->bytes, window->length, MADV_DONTNEED);
        window->forgotten = 0;
    } else if (at >= start + 2 * LOOKED_AT) {
        window->forgotten = at - LOOKED_AT;
        madvise(window->bytes + start, window->forgotten - start, MADV_DONTNEED);
    }
}

static void let_go(struct views *views, const struct view *view)
{
    struct view_window *window = view->window;
    pthread_mutex_lock(&views->lock);
    window->views--;
    forget(window, view->offset);
    pthread_mutex_unlock(&views->lock);
}

/* The last byte stands for all: what is read ahead from a disk comes in order. */
static bool is_cached(struct imgtk_storage *file, uint64_t offset, size_t length)
{
    char byte;
    struct iovec one = { &byte, 1 };
    return preadv2(file->ops.fd(file->handle), &one, 1, (off_t)(offset + length - 1), RWF_NOWAIT) == 1;
}

/* Into the tables of this process, so that nobody waits for a page fault. */
static bool populate(struct views *views, const struct view *view)
{
    size_t skip = (size_t)(view->offset % page_size());
    uint8_t *start = view->window->bytes + (view->offset - skip - view->window->offset);
    if (madvise(start, view->length + skip, MADV_POPULATE_READ) == 0)
        return true;
    if (errno == EINVAL) /* before Linux 5.14 */
        atomic_store(&views->wanted, false);
    return false;
}

bool views_take(struct views *views, struct imgtk_storage *file, uint64_t offset, size_t length, struct view *out)
{
    struct file *local = atomic_load_explicit(&views->wanted, memory_order_relaxed) ? local_file(file) : NULL;
    *out = (struct view){ .offset = offset, .length = length };
    if (!local || !is_cached(file, offset, length))
        return false;
    out->window = hold_window(views, file, offset, length);
    if (!out->window)
        return false;
    if (!populate(views, out)) {
        let_go(views, out);
        return false;
    }
    out->bytes = out->window->bytes + (offset - out->window->offset);
    file_has_read(local, offset, length);
    return true;
}

void view_warm(const struct view *view)
{
    for (size_t at = 0; at < view->length; at += CACHE_LINE)
        (void)*(const volatile uint8_t *)(view->bytes + at);
}

/* Cut short within a page, its end reads as zeroes without a signal. */
static bool is_whole(const struct view *view)
{
    uint64_t size;
    return !mapping_guard_lost(view->window->guard) && imgtk_storage_size(view->window->file, &size, NULL) == 0 &&
           imgtk_range_fits(view->offset, view->length, size);
}

int views_give_back(struct views *views, struct view *view, bool gone, struct imgtk_error *err)
{
    if (!view->bytes)
        return 0;
    int status = 0;
    if (gone || !is_whole(view))
        status = imgtk_fail(err, IMGTK_ECORRUPT, "%s: the file was made shorter while it was read, or its disk fails",
                            imgtk_storage_name(view->window->file));
    let_go(views, view);
    view->bytes = NULL;
    return status;
}
