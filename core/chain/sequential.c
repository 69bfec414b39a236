#include "sequential.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "context/context.h"
#include "image_internal.h"
#include "imgtk/bytes.h"
#include "reference.h"
#include "storage/sequence.h"
#include "storage/storage.h"

#define PIECE (1u << 20)
#define HOLE (64u << 10) /* zeroes that are not written: the temporary file stays sparse */
#define MAX_TABLES (24u << 20) /* what is held in memory of an image that is read as it comes */

/* ---- Spooling ------------------------------------------------------------ */

static int write_sparse(struct imgtk_storage *to, const unsigned char *buf, size_t length, uint64_t offset,
                        struct imgtk_error *err)
{
    for (size_t at = 0; at < length;) {
        size_t step = length - at < HOLE ? length - at : HOLE;
        int status = imgtk_is_zero(buf + at, step) ? 0 : imgtk_storage_pwrite(to, buf + at, step, offset + at, err);
        if (status)
            return status;
        at += step;
    }
    return 0;
}

/* A pipe need not end, and its copy takes up space as the target does. */
static int check_budget(const struct imgtk_context *context, uint64_t length, struct imgtk_error *err)
{
    uint64_t limit = context->config.budget.output;
    if (limit == 0 || length <= limit)
        return 0;
    return imgtk_fail(err, IMGTK_ELIMIT, "it has more than %" PRIu64 " bytes, the limit of --max-output, which counts for "
                      "its temporary copy too", limit);
}

/* length: so many bytes there are, or are known to be. */
static int check_limit(const struct imgtk_storage *from, uint64_t length, struct imgtk_error *err)
{
    uint64_t limit = from->ops.spool_limit(from->handle);
    if (length <= limit)
        return 0;
    return imgtk_fail(err, IMGTK_ELIMIT, "it would have to be read into a temporary file first, and is larger than the "
                      "limit of %" PRIu64 " bytes for that (see spool-limit)", limit);
}

static int check_known_size(struct imgtk_storage *from, struct imgtk_error *err)
{
    uint64_t size;
    return imgtk_storage_size(from, &size, NULL) ? 0 : check_limit(from, size, err);
}

static int copy_all(struct imgtk_context *context, struct imgtk_storage *from, struct imgtk_storage *to, void *buf,
                    struct imgtk_error *err)
{
    uint64_t offset = 0;
    for (size_t done = PIECE; done == PIECE; offset += done) {
        int status = imgtk_storage_pread_some(from, buf, PIECE, offset, &done, err);
        if (!status)
            status = check_limit(from, offset + done, err);
        if (!status)
            status = check_budget(context, offset + done, err);
        if (!status)
            status = write_sparse(to, buf, done, offset, err);
        if (status)
            return status;
        if (imgtk_cancel_reason(context->cancel))
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    }
    return imgtk_storage_truncate(to, offset, err);
}

/* /dev/zero would fill the disk; a terminal would wait for an image to be typed. */
static bool is_endless(const struct imgtk_storage *pipe)
{
    struct stat st;
    int failed = strcmp(pipe->name, "-") == 0 ? fstat(STDIN_FILENO, &st) : stat(pipe->name, &st);
    return failed == 0 && S_ISCHR(st.st_mode);
}

static int spool(struct imgtk_context *context, struct imgtk_storage **file, struct imgtk_error *err)
{
    struct imgtk_storage *pipe = *file, *copy;
    context_note(context, "%s: can be read once only, so it is read into a temporary file first", pipe->name);
    int status = check_known_size(pipe, err);
    if (!status)
        status = context_spool(context, &copy, err);
    if (status)
        return status;
    void *buf = malloc(PIECE);
    status = buf ? copy_all(context, pipe, copy, buf, err) : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    free(buf);
    if (status) {
        imgtk_storage_close(copy);
        return status;
    }
    char *name = copy->name;
    copy->name = pipe->name;
    pipe->name = name;
    imgtk_storage_close(pipe);
    *file = copy;
    return 0;
}

/* ---- In order ------------------------------------------------------------ */

/* Opens the image to try it; whatever fails is told when the spooled copy fails too. */
static bool gives_in_order(struct imgtk_context *context, struct imgtk_storage *pipe,
                           const struct imgtk_image_request *request)
{
    struct imgtk_error ignored = IMGTK_ERROR_INIT;
    struct layer layer = { .public.file = pipe, .public.name = imgtk_storage_name(pipe),
                           .metadata.limit = context->config.budget.metadata };
    bool in_order = false;
    /* What nothing has recognised could still show by its end what it is. */
    if (layer_find_driver(context, &layer, request->format, &ignored) || layer.public.format_guessed ||
        !(layer.public.driver->flags & IMGTK_DRIVER_STREAM_READ))
        return false;
    if (references_new(context, layer.public.name, request->single_layer, &layer.references, &ignored) == 0 &&
        layer_open_driver(&layer, request, true, &ignored) == 0) {
        if (layer.public.driver->in_order(layer.public.handle, &in_order, &ignored))
            in_order = false;
        layer.public.driver->close(layer.public.handle);
    }
    references_free(layer.references);
    return in_order;
}

int sequential_settle(struct imgtk_context *context, struct imgtk_storage **file,
                      const struct imgtk_image_request *request, struct imgtk_error *err)
{
    struct imgtk_storage *pipe = *file;
    if (!(imgtk_storage_flags(pipe) & IMGTK_STORAGE_SEQUENTIAL))
        return 0;
    if (is_endless(pipe))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "it is a character device, which need not end: only files, block "
                          "devices and pipes are read");
    if (!request->in_order)
        return spool(context, file, err);
    sequence_keep(pipe, MAX_TABLES);
    if (!gives_in_order(context, pipe, request)) {
        sequence_go_on(pipe);
        return spool(context, file, err);
    }
    context_note(context, "%s: its tables come first, so it is read as it comes", pipe->name);
    return sequence_freeze(pipe, err);
}
