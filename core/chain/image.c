/* An image: the layer that was named and the chain of layers below it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "context/context.h"
#include "image_internal.h"
#include "modules/registry.h"
#include "reference.h"
#include "sequential.h"
#include "storage/storage.h"

/* ---- One layer ---------------------------------------------------------- */

static void layer_close(struct layer *layer)
{
    if (layer->borrowed)
        return;
    if (layer->public.handle)
        layer->public.driver->close(layer->public.handle);
    if (layer->borrows_file)
        return;
    references_free(layer->references);
    imgtk_storage_close(layer->public.file);
}

int layer_find_driver(struct imgtk_context *context, struct layer *layer, const char *format, struct imgtk_error *err)
{
    const struct imgtk_driver *named = NULL;
    if (format) {
        int status = imgtk_driver_find(context, format, &named, err);
        layer->public.driver = named;
        if (status || context->config.trust == IMGTK_TRUSTED)
            return status;
    }
    int status = imgtk_driver_probe(context, layer->public.file, &layer->public.driver, &layer->public.format_guessed,
                                    err);
    if (!status && named && layer->public.driver != named)
        return imgtk_fail(err, IMGTK_EREFUSED, "it is said to be %s, but its content is %s, which --untrusted refuses",
                          named->name, layer->public.driver->name);
    layer->public.format_guessed = layer->public.format_guessed && !named;
    return status;
}

/* What the driver reads meanwhile is its tables. */
static int open_metered(struct layer *layer, struct imgtk_open *args, struct imgtk_error *err)
{
    layer->metadata.used = 0;
    layer->public.file->metadata = &layer->metadata;
    references_set_meter(layer->references, &layer->metadata);
    int status = layer->public.driver->open(args, &layer->public.handle, err);
    layer->public.file->metadata = NULL;
    layer->metadata.limit = 0;
    return status;
}

int layer_open_driver(struct layer *layer, const struct imgtk_image_request *request, bool top,
                      struct imgtk_error *err)
{
    const struct imgtk_driver *driver = layer->public.driver;
    struct imgtk_opts *opts = imgtk_opts_new(driver->open_opts);
    if (!opts)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = top && request->format_opts ? imgtk_opts_parse(opts, driver->name, request->format_opts, err) : 0;
    if (!status) {
        struct imgtk_open args = {
            .file = layer->public.file,
            .opts = opts,
            .refs = layer->references,
            .snapshot = top ? request->snapshot : NULL,
            .flags = (request->writable && top ? IMGTK_OPEN_WRITABLE : 0u) |
                     (request->single_layer ? IMGTK_OPEN_NO_REFERENCES : 0u) |
                     (request->check ? IMGTK_OPEN_CHECK : 0u),
        };
        status = open_metered(layer, &args, err);
    }
    imgtk_opts_free(opts);
    return status;
}

/* file: taken over. The driver reads through it until the layer is closed. */
static int layer_open(struct imgtk_image *image, struct imgtk_storage *file, const char *format,
                      const struct imgtk_image_request *request, struct imgtk_error *err)
{
    struct layer *layer = &image->layers[image->count];
    memset(layer, 0, sizeof(*layer));
    layer->metadata.limit = image->context->config.budget.metadata;
    layer->public.file = file;
    layer->public.name = imgtk_storage_name(file);
    if (request->drop_cache)
        imgtk_storage_drop_cache(file);
    int status = references_new(image->context, layer->public.name, request->single_layer, &layer->references, err);
    if (!status)
        status = layer_find_driver(image->context, layer, format, err);
    if (!status)
        status = layer_open_driver(layer, request, image->count == 0, err);
    if (status) {
        imgtk_fail_prefix(err, "%s", layer->public.name);
        layer_close(layer);
        return status;
    }
    layer->public.size = layer->public.driver->size(layer->public.handle);
    layer->is_snapshot = image->count == 0 && request->snapshot;
    context_note(image->context, "layer %zu: %s: %s, a disk of %llu bytes", image->count, layer->public.name,
                 layer->public.driver->name, (unsigned long long)layer->public.size);
    image->count++;
    return 0;
}

/* ---- The chain below ---------------------------------------------------- */

/* A loop would end at the limit too, but its reason would not be told. */
static int check_loop(const struct imgtk_image *image, struct imgtk_storage *file, struct imgtk_error *err)
{
    struct stat st, upper;
    int fd = file->ops.fd(file->handle);
    if (fd < 0 || fstat(fd, &st) != 0)
        return 0;
    for (size_t i = 0; i < image->count; i++) {
        const struct imgtk_storage *other = image->layers[i].public.file;
        fd = other->ops.fd(other->handle);
        if (fd >= 0 && fstat(fd, &upper) == 0 && upper.st_dev == st.st_dev && upper.st_ino == st.st_ino)
            return imgtk_fail(err, IMGTK_ECORRUPT, "backing chain loops: '%s' is layer %zu already",
                              imgtk_storage_name(file), i);
    }
    return 0;
}

static int open_backing_file(struct layer *layer, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    const char *const *names = layer->backing.names;
    int status = IMGTK_ENOTFOUND;
    for (size_t i = 0; status == IMGTK_ENOTFOUND && i < IMGTK_BACKING_NAMES && names[i]; i++)
        status = imgtk_reference_open(layer->references, names[i], flags, out, err);
    return status ? imgtk_fail_prefix(err, "backing file") : 0;
}

/* Guessing raw would let whoever wrote the disk's first bytes choose how the host reads it. */
static int refuse_guess(const struct layer *overlay, const struct layer *backing, struct imgtk_error *err)
{
    if (!backing->public.format_guessed)
        return 0;
    return imgtk_fail(err, IMGTK_EREFUSED,
                      "the image does not record the format of its backing file '%s', and the content is not recognised: "
                      "name it with --backing-format (raw, if it is)", overlay->backing.names[0]);
}

static int check_identity(const struct layer *overlay, const struct layer *backing, struct imgtk_error *err)
{
    char identity[64] = "";
    const char *expected = overlay->backing.identity;
    if (!expected)
        return 0;
    int status = backing->public.driver->identity(backing->public.handle, identity, err);
    const char *other = overlay->backing.other_identity;
    if (status || strcmp(identity, expected) == 0 || (other && strcmp(identity, other) == 0))
        return status;
    return imgtk_fail(err, IMGTK_ECORRUPT, "'%s' is not the parent it was made on: it is %s, %s is recorded",
                      backing->public.name, *identity ? identity : "of a format without identity", expected);
}

static int recorded_format(const struct imgtk_image *image, const char *recorded, struct imgtk_storage *file,
                           const char **out, struct imgtk_error *err)
{
    int status = registry_recorded_format(image->context, recorded, out, err);
    return status ? imgtk_fail_prefix(err, "%s", imgtk_storage_name(file)) : 0;
}

static int open_below(struct imgtk_image *image, const struct imgtk_image_request *request, struct imgtk_error *err)
{
    struct layer *overlay = &image->layers[image->count - 1];
    if (image->count == IMGTK_MAX_CHAIN)
        return imgtk_fail(err, IMGTK_ELIMIT, "the backing chain has more than %d layers", IMGTK_MAX_CHAIN);
    struct imgtk_storage *file = NULL;
    int status = open_backing_file(overlay, 0, &file, err);
    if (status)
        return status;
    const char *format = request->backing_format;
    status = check_loop(image, file, err);
    if (!status && overlay->backing.format)
        status = recorded_format(image, overlay->backing.format, file, &format, err);
    if (status) {
        imgtk_storage_close(file);
        return status;
    }
    status = layer_open(image, file, format, request, err);
    if (!status)
        status = refuse_guess(overlay, &image->layers[image->count - 1], err);
    if (!status)
        status = check_identity(overlay, &image->layers[image->count - 1], err);
    return status;
}

static int open_chain(struct imgtk_image *image, const struct imgtk_image_request *request, struct imgtk_error *err)
{
    for (;;) {
        struct layer *bottom = &image->layers[image->count - 1];
        int status = bottom->public.driver->backing(bottom->public.handle, &bottom->backing, err);
        if (status || request->single_layer || !bottom->backing.names[0])
            return status;
        const char *name = bottom->public.name;
        status = open_below(image, request, err);
        if (status)
            return imgtk_fail_prefix(err, "%s", name);
    }
}

/* ---- Public ------------------------------------------------------------- */

/* file: taken over. */
static int open_image(struct imgtk_context *context, struct imgtk_storage *file,
                      const struct imgtk_image_request *request, struct imgtk_image **out, struct imgtk_error *err)
{
    struct imgtk_image *image = calloc(1, sizeof(*image));
    if (!image) {
        imgtk_storage_close(file);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    image->context = context;
    int status = layer_open(image, file, request->format, request, err);
    if (!status)
        status = open_chain(image, request, err);
    if (status) {
        imgtk_image_close(image);
        return status;
    }
    *out = image;
    return 0;
}

int imgtk_image_open(struct imgtk_context *context, const char *name, const struct imgtk_image_request *request,
                     struct imgtk_image **out, struct imgtk_error *err)
{
    static const struct imgtk_image_request no_request = { 0 };
    struct imgtk_storage *file = NULL;
    if (!request)
        request = &no_request;
    uint32_t flags = (request->writable ? IMGTK_STORAGE_WRITABLE : 0u) |
                     (request->allocation_depth ? IMGTK_STORAGE_TELLS_DEPTH : 0u);
    int status = imgtk_storage_open(context, name, flags, request->storage_opts, &file, err);
    if (status)
        return status;
    status = sequential_settle(context, &file, request, err);
    if (status) {
        imgtk_fail_prefix(err, "%s", imgtk_storage_name(file));
        imgtk_storage_close(file);
        return status;
    }
    return open_image(context, file, request, out, err);
}

int image_open_below(struct imgtk_image *image, size_t depth, struct imgtk_image **out, struct imgtk_error *err)
{
    struct imgtk_storage *file = NULL;
    struct imgtk_image_request request = { .format = image->layers[depth].public.driver->name, .writable = true };
    int status = open_backing_file(&image->layers[depth - 1], IMGTK_STORAGE_WRITABLE, &file, err);
    if (status)
        return imgtk_fail_prefix(err, "%s", image->layers[depth - 1].public.name);
    return open_image(image->context, file, &request, out, err);
}

static int borrow_layers(struct imgtk_image *image, const struct imgtk_image *from, size_t first,
                         struct imgtk_error *err)
{
    for (size_t i = first; i < from->count; i++) {
        if (image->count == IMGTK_MAX_CHAIN)
            return imgtk_fail(err, IMGTK_ELIMIT, "the backing chain has more than %d layers", IMGTK_MAX_CHAIN);
        image->layers[image->count] = from->layers[i];
        image->layers[image->count++].borrowed = true;
    }
    return 0;
}

/* `top`, without a handle yet, over the layers of `below` (NULL: none) from `first` on. */
static int open_borrowed(struct imgtk_context *context, const struct layer *top,
                         const struct imgtk_image_request *request, const struct imgtk_image *below, size_t first,
                         struct imgtk_image **out, struct imgtk_error *err)
{
    struct imgtk_image *image = calloc(1, sizeof(*image));
    if (!image)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    image->context = context;
    struct layer *layer = &image->layers[0];
    *layer = *top;
    layer->borrows_file = true;
    int status = layer_open_driver(layer, request, true, err);
    references_set_meter(layer->references, NULL); /* they outlive the image */
    if (!status) {
        image->count = 1;
        layer->public.size = layer->public.driver->size(layer->public.handle);
    }
    if (!status && below)
        status = borrow_layers(image, below, first, err);
    if (status) {
        imgtk_image_close(image);
        return status;
    }
    *out = image;
    return 0;
}

int image_open_written(struct imgtk_context *context, const struct image_written *written, struct imgtk_image **out,
                       struct imgtk_error *err)
{
    static const struct imgtk_image_request plain = { 0 };
    struct layer top = { .references = written->references };
    top.public.file = written->file;
    top.public.name = imgtk_storage_name(written->file);
    top.public.driver = written->driver;
    return open_borrowed(context, &top, &plain, written->backing, 0, out, err);
}

int image_open_snapshot(struct imgtk_image *image, size_t depth, const char *snapshot, struct imgtk_image **out,
                        struct imgtk_error *err)
{
    const struct layer *own = &image->layers[depth];
    struct imgtk_image_request request = { .snapshot = snapshot };
    struct layer top = { .references = own->references, .is_snapshot = true };
    top.public.file = own->public.file;
    top.public.name = own->public.name;
    top.public.driver = own->public.driver;
    top.metadata.limit = image->context->config.budget.metadata;
    return open_borrowed(image->context, &top, &request, image, depth + 1, out, err);
}

void imgtk_image_close(struct imgtk_image *image)
{
    if (!image)
        return;
    while (image->count > 0)
        layer_close(&image->layers[--image->count]);
    free(image);
}

bool image_is_remote(const struct imgtk_image *image)
{
    bool remote = false;
    for (size_t i = 0; !remote && i < image->count; i++)
        remote = imgtk_storage_flags(image->layers[i].public.file) & IMGTK_STORAGE_REMOTE;
    return remote;
}

unsigned image_workers(const struct imgtk_image *image)
{
    return context_workers(image->context, image_is_remote(image));
}

uint64_t imgtk_image_size(const struct imgtk_image *image)
{
    return image->layers[0].public.size;
}

size_t imgtk_image_depth(const struct imgtk_image *image)
{
    return image->count;
}

const struct imgtk_layer *imgtk_image_layer(const struct imgtk_image *image, size_t depth)
{
    return &image->layers[depth].public;
}
