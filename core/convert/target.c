#include "target.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain/image_internal.h"
#include "chain/reference.h"
#include "context/context.h"
#include "imgtk/bytes.h"
#include "imgtk/info.h"
#include "resume.h"
#include "storage/storage.h"

/* ---- Opening ------------------------------------------------------------ */

static bool is_file_of(const struct stat *st, const struct imgtk_image *image)
{
    for (size_t i = 0; i < image->count; i++) {
        const struct imgtk_storage *file = image->layers[i].public.file;
        struct stat other;
        int fd = file->ops.fd(file->handle);
        if (fd < 0 || fstat(fd, &other) != 0)
            continue;
        if (st->st_dev == other.st_dev && st->st_ino == other.st_ino)
            return true;
        if (S_ISBLK(st->st_mode) && S_ISBLK(other.st_mode) && st->st_rdev == other.st_rdev)
            return true;
    }
    return false;
}

/* The file that a name means, if it is there: "file:disk", "fd:5" and "-" are names too. */
static bool stat_name(struct imgtk_context *context, const char *name, struct stat *st)
{
    struct storage_name parsed;
    if (storage_name_parse(context, name, &parsed, NULL) != 0)
        return false;
    switch (parsed.kind) {
    case STORAGE_NAME_PATH:
        return stat(parsed.path, st) == 0;
    case STORAGE_NAME_STDIO:
        return fstat(STDOUT_FILENO, st) == 0;
    case STORAGE_NAME_FD:
        return fstat(atoi(name + strlen("fd:")), st) == 0;
    default:
        return false;
    }
}

/* Whatever the names: two paths, a link, a device node of the same device. */
static int refuse_file(const struct target_request *request, const struct stat *st, struct imgtk_error *err)
{
    if (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode))
        return 0;
    for (size_t i = 0; i < request->source_count; i++)
        if (is_file_of(st, request->sources[i]))
            return imgtk_fail(err, IMGTK_EINVAL, "source and target are the same file, or the target backs the source");
    if (request->base && is_file_of(st, request->base))
        return imgtk_fail(err, IMGTK_EINVAL, "the target is the image that it is compared with, or its own backing file");
    return 0;
}

static int refuse_source(const struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    struct stat st;
    return stat_name(target->context, request->wish->name, &st) ? refuse_file(request, &st, err) : 0;
}

/* Neither of the two need be there yet, so their folders and last components are compared. */
static bool is_same_place(const char *one, const char *other)
{
    const char *paths[2] = { one, other }, *names[2];
    struct stat folders[2];
    for (size_t i = 0; i < 2; i++) {
        char folder[PATH_MAX];
        const char *slash = strrchr(paths[i], '/');
        names[i] = slash ? slash + 1 : paths[i];
        int length = snprintf(folder, sizeof(folder), "%.*s.", (int)(names[i] - paths[i]), paths[i]);
        if (length >= PATH_MAX || stat(folder, &folders[i]) != 0)
            return false;
    }
    return strcmp(names[0], names[1]) == 0 && folders[0].st_dev == folders[1].st_dev &&
           folders[0].st_ino == folders[1].st_ino;
}

struct companion_guard {
    struct imgtk_context *context;
    const struct target_request *request;
};

/* A file that the target brings with it (a data file, an extent) replaces what has its name. */
static int guard_companion(void *context, const char *path, struct imgtk_error *err)
{
    const struct companion_guard *guard = context;
    const char *target_name = guard->request->wish->name;
    struct storage_name parsed;
    struct stat companion, target;
    int status = storage_name_parse(guard->context, target_name, &parsed, err);
    if (status)
        return status;
    bool present = stat(path, &companion) == 0;
    bool same_file = present && stat_name(guard->context, target_name, &target) &&
                     companion.st_dev == target.st_dev && companion.st_ino == target.st_ino;
    if (same_file || (parsed.kind == STORAGE_NAME_PATH && is_same_place(path, parsed.path)))
        return imgtk_fail(err, IMGTK_EINVAL, "'%s' is the target itself", path);
    status = present ? refuse_file(guard->request, &companion, err) : 0;
    return status ? imgtk_fail_prefix(err, "%s", path) : 0;
}

/* What shapes the bytes of the target; a journal of another shape is of no use. */
static int describe_shape(const struct target *target, const struct target_request *request, char *out, size_t size,
                          struct imgtk_error *err)
{
    const char *preset = imgtk_context_format_options(target->context, target->driver->name);
    const char *options = request->wish->format_opts;
    int length = snprintf(out, size, "%s;%s;%s;%d;%lld", target->driver->name, preset ? preset : "",
                          options ? options : "", request->write_all, (long long)request->sparse_size);
    if (length < 0 || (size_t)length >= size)
        return imgtk_fail(err, IMGTK_ELIMIT, "the options are too long");
    return 0;
}

/* What came through a pipe is in a temporary file without a name, and gone after an interruption. */
static bool reads_pipe(const struct target_request *request)
{
    for (size_t i = 0; i < request->source_count; i++) {
        const struct imgtk_storage *file = request->sources[i]->layers[0].public.file;
        int fd = file->ops.fd(file->handle);
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0)
            return true;
    }
    return false;
}

/* Or will be one: a device or a FIFO has no place beside it for an unfinished file, and is not replaced by one. */
static bool is_file_name(struct imgtk_context *context, const char *name)
{
    struct storage_name parsed;
    struct stat st;
    if (storage_name_parse(context, name, &parsed, NULL) != 0 || parsed.kind != STORAGE_NAME_PATH)
        return false;
    return stat(parsed.path, &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
}

static int open_resumed(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    char shape[4096];
    const struct imgtk_target *wish = request->wish;
    if (!request->plan || wish->existing || wish->compress || !is_file_name(target->context, wish->name))
        return imgtk_fail(err, IMGTK_EINVAL, "%s: --resume is for uncompressed conversions into a new file", wish->name);
    if (reads_pipe(request))
        return imgtk_fail(err, IMGTK_EINVAL, "%s: --resume is not for a pipe as source: it cannot be read twice",
                          wish->name);
    if (!(target->driver->flags & IMGTK_DRIVER_RESUME))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "%s: --resume is not for format %s", wish->name,
                          target->driver->name);
    int status = describe_shape(target, request, shape, sizeof(shape), err);
    return status ? status : resume_open(target->context, request, shape, &target->resume, &target->file, err);
}

static int open_file(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    const struct imgtk_target *wish = request->wish;
    int status = refuse_source(target, request, err);
    if (status)
        return imgtk_fail_prefix(err, "%s", wish->name);
    if (wish->resume) {
        status = open_resumed(target, request, err);
        if (!status)
            target->file->output.meter = &target->context->output;
        return status;
    }
    if (wish->existing)
        return imgtk_storage_open(target->context, wish->name, IMGTK_STORAGE_WRITABLE, wish->storage_opts,
                                  &target->file, err);
    return imgtk_storage_create(target->context, wish->name, &target->file, err);
}

/* A raw disk is as large as its file; -n promises to leave that alone. Other formats are laid out anew. */
static int check_room(const struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    uint64_t present = 0;
    if (!request->wish->existing || target->sequential || !(target->driver->flags & IMGTK_DRIVER_NO_PROBE_WRITE))
        return 0;
    int status = imgtk_storage_size(target->file, &present, err);
    if (!status && present < request->size)
        return imgtk_fail(err, IMGTK_EINVAL, "the target has %llu bytes, the disk needs %llu",
                          (unsigned long long)present, (unsigned long long)request->size);
    return status;
}

static int has_snapshots(const struct imgtk_image *image, bool *out, struct imgtk_error *err)
{
    const struct imgtk_layer *layer = imgtk_image_layer(image, 0);
    struct imgtk_layer_info info = { .specific = imgtk_info_new(IMGTK_INFO_OBJECT),
                                     .snapshots = imgtk_info_new(IMGTK_INFO_LIST) };
    int status = IMGTK_ENOMEM;
    if (info.specific && info.snapshots)
        status = layer->driver->info(layer->handle, &info, err);
    *out = !status && !imgtk_info_empty(info.snapshots);
    imgtk_info_free(info.specific);
    imgtk_info_free(info.snapshots);
    return status;
}

/* With -n an image of the format is made anew in its place: refused where that would lose more than its disk. */
static int check_replaced(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    struct imgtk_image_request as_it_is = { .format = target->driver->name, .single_layer = true };
    struct imgtk_error ignored = IMGTK_ERROR_INIT;
    struct imgtk_image *image;
    bool snapshots = false;
    if (!request->wish->existing || target->sequential || (target->driver->flags & IMGTK_DRIVER_NO_PROBE_WRITE) ||
        imgtk_image_open(target->context, request->wish->name, &as_it_is, &image, &ignored))
        return 0; /* no image is there */
    uint64_t size = imgtk_image_size(image);
    int status = has_snapshots(image, &snapshots, err);
    imgtk_image_close(image);
    if (!status && snapshots)
        return imgtk_fail(err, IMGTK_EREFUSED,
                          "it has internal snapshots, which would be lost: convert without -n to replace it");
    if (!status && size != request->size)
        return imgtk_fail(err, IMGTK_EINVAL, "its disk has %llu bytes, the source has %llu: convert without -n to replace it",
                          (unsigned long long)size, (unsigned long long)request->size);
    return status;
}

static int judge_file(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    const struct imgtk_target *wish = request->wish;
    uint32_t flags = imgtk_storage_flags(target->file);
    target->sequential = (flags & IMGTK_STORAGE_SEQUENTIAL) != 0;
    target->reads_zero = (flags & IMGTK_STORAGE_READS_ZERO) || wish->is_zero;
    if (target->sequential && !(target->driver->flags & IMGTK_DRIVER_STREAM))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "format %s cannot be written to a pipe: it must be written out of order",
                          target->driver->name);
    if (request->read_back && (target->sequential || strcmp(target->file->ops.name, "null") == 0))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "--verify is for files, devices and exports: this cannot be read back");
    int status = check_room(target, request, err);
    return status ? status : check_replaced(target, request, err);
}

/* ---- Sharing blocks ------------------------------------------------------ */

#define REFLINK_TRIAL (64u << 10)

static bool can_share(struct imgtk_storage *from, struct imgtk_storage *to)
{
    struct imgtk_error ignored = IMGTK_ERROR_INIT;
    uint64_t size = 0, copied = 0;
    if (from->ops.fd(from->handle) < 0 || imgtk_storage_size(from, &size, &ignored) || size < REFLINK_TRIAL)
        return false;
    int status = imgtk_storage_copy(from, 0, to, 0, REFLINK_TRIAL, &copied, &ignored);
    return !status && copied > 0;
}

/*
 * Tried before anything is written: a driver that has given away a place
 * cannot take it back when the kernel then refuses, so what the file looks
 * like would depend on which worker came first.
 */
static int try_sharing(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    bool is_new = !request->wish->existing && (imgtk_storage_flags(target->file) & IMGTK_STORAGE_READS_ZERO);
    if (target->sequential || !is_new || request->source_count == 0 ||
        target->resume || (target->driver->flags & IMGTK_DRIVER_FIXED_PLACES))
        return 0;
    bool shares = true;
    for (size_t i = 0; shares && i < request->source_count; i++)
        for (size_t depth = 0; shares && depth < request->sources[i]->count; depth++)
            shares = can_share(request->sources[i]->layers[depth].public.file, target->file);
    target->shares_blocks = shares;
    uint64_t tried = 0;
    int status = imgtk_storage_size(target->file, &tried, err);
    /* Not without need: ext4 brings a file that was ever cut to nothing to the disk as soon as it is closed. */
    return status || tried == 0 ? status : imgtk_storage_truncate(target->file, 0, err);
}

/* ---- Laying out --------------------------------------------------------- */

int target_options(struct imgtk_context *context, const struct imgtk_driver *driver, const char *text,
                   struct imgtk_opts **out, struct imgtk_error *err)
{
    const char *preset = imgtk_context_format_options(context, driver->name);
    *out = imgtk_opts_new(driver->create_opts);
    if (!*out)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = preset ? imgtk_opts_parse(*out, driver->name, preset, err) : 0;
    if (status)
        return imgtk_fail_prefix(err, "configuration");
    return text ? imgtk_opts_parse(*out, driver->name, text, err) : 0;
}

static void note_line(void *context, const char *message)
{
    context_note(context, "%s", message);
}

/* A device cannot grow: whether the image fits is known before its first byte is written, where the size is. */
static int require_room(const struct target *target, struct imgtk_create *args, struct imgtk_error *err)
{
    struct imgtk_measure need = { 0 };
    struct imgtk_error ignored = IMGTK_ERROR_INIT;
    uint64_t present = 0;
    if (!(imgtk_storage_flags(target->file) & IMGTK_STORAGE_FIXED_SIZE))
        return 0;
    int status = imgtk_storage_size(target->file, &present, err);
    if (status || target->driver->measure(args, &need, &ignored) || need.upper_bound || need.required <= present)
        return status;
    return imgtk_fail(err, IMGTK_ENOSPACE, "the target has %llu bytes, the image needs %llu", (unsigned long long)present,
                      (unsigned long long)need.required);
}

static bool is_far(const struct target *target, const struct target_request *request)
{
    bool far = imgtk_storage_flags(target->file) & IMGTK_STORAGE_REMOTE;
    for (size_t i = 0; !far && i < request->source_count; i++)
        far = image_is_remote(request->sources[i]);
    return far;
}

static unsigned choose_workers(const struct target *target, const struct target_request *request)
{
    if (!(target->driver->flags & IMGTK_DRIVER_PARALLEL))
        return 1;
    unsigned workers = request->workers ? request->workers : context_workers(target->context, target->far);
    return workers < IMGTK_MAX_WORKERS ? workers : IMGTK_MAX_WORKERS;
}

/* Who stands ready to write needs a CPU that nobody else could use. */
static unsigned choose_writers(const struct target *target)
{
    if (!target->one_writer)
        return target->workers;
    return target->workers > context_cpus() ? 1 : STORAGE_WRITERS;
}

static int lay_out(struct target *target, const struct target_request *request, struct imgtk_error *err)
{
    char identity[64] = "";
    int status = 0;
    if (request->backing) {
        const struct imgtk_layer *parent = &request->backing->layers[0].public;
        status = parent->driver->identity(parent->handle, identity, err);
        if (status)
            return status;
    }
    target->far = is_far(target, request);
    target->workers = choose_workers(target, request);
    struct imgtk_create args = {
        .file = target->file,
        .size = request->size,
        .opts = target->opts,
        .refs = target->references,
        .plan = request->plan,
        .flags = (request->wish->compress ? IMGTK_CREATE_COMPRESS : 0u) |
                 (target->sequential ? IMGTK_CREATE_STREAM : 0u) | (request->plan ? 0u : IMGTK_CREATE_EMPTY) |
                 (request->write_all ? IMGTK_CREATE_FULL : 0u) | (target->resume ? IMGTK_CREATE_RESUME : 0u),
        .workers = target->workers,
        .note = note_line,
        .note_context = target->context,
        .backing_identity = identity[0] ? identity : NULL,
    };
    status = require_room(target, &args, err);
    if (status)
        return status;
    if (request->wish->compress && !(target->driver->flags & IMGTK_DRIVER_COMPRESS))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "Compression not supported for this file format (%s)",
                          target->driver->name);
    status = target->driver->create(&args, &target->writer, err);
    if (status)
        return status;
    target->unit = args.unit;
    bool compresses = args.compresses || request->wish->compress;
    target->prepares = compresses && target->driver->prepare;
    target->drops_zeroes = compresses && (target->driver->flags & IMGTK_DRIVER_DROPS_ZEROES);
    target->one_writer = !compresses && (imgtk_storage_flags(target->file) & IMGTK_STORAGE_ONE_WRITER);
    target->writers = choose_writers(target);
    if (target->resume && references_have_created(target->references))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "--resume is for targets of one file");
    if (!imgtk_is_power_of_two(target->unit) || target->unit > 2u << 20)
        return imgtk_fail(err, IMGTK_EINVAL,
                          "the driver %s works in units of %u bytes, which is not a power of two up to 2 MiB",
                          target->driver->name, (unsigned)target->unit);
    return 0;
}

int target_create(struct imgtk_context *context, const struct target_request *request, struct target *out,
                  struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->context = context;
    out->wish = request->wish;
    int status = imgtk_driver_find(context, request->wish->format ? request->wish->format : "raw", &out->driver, err);
    if (!status)
        status = target_options(context, out->driver, out->wish->format_opts, &out->opts, err);
    if (status)
        return status; /* about options, not about the file */
    status = references_new(context, request->wish->name, false, &out->references, err);
    if (!status)
        status = open_file(out, request, err);
    if (status)
        return status; /* names the file itself */
    if (request->wish->drop_cache)
        imgtk_storage_drop_cache(out->file);
    if (request->wish->write_through)
        imgtk_storage_write_through(out->file);
    status = judge_file(out, request, err);
    if (!status)
        status = try_sharing(out, request, err);
    struct companion_guard guard = { context, request };
    references_set_guard(out->references, guard_companion, &guard);
    if (!status)
        status = lay_out(out, request, err);
    references_set_guard(out->references, NULL, NULL);
    return status ? imgtk_fail_prefix(err, "%s", request->wish->name) : 0;
}

/* ---- Ending ------------------------------------------------------------- */

int target_finish(struct target *target, struct imgtk_error *err)
{
    int status = target->driver->finish(target->writer, err);
    return status ? imgtk_fail_prefix(err, "%s", target->wish->name) : 0;
}

int target_settle(struct target *target, struct imgtk_error *err)
{
    bool sync = !target->wish->no_sync;
    int status = references_settle(target->references, sync, err);
    if (!status && sync)
        status = imgtk_storage_flush(target->file, err);
    if (!status)
        imgtk_storage_drop_cache(target->file);
    return status;
}

int target_commit(struct target *target, struct imgtk_error *err)
{
    bool sync = !target->wish->no_sync;
    int status = references_commit(target->references, sync, err);
    if (!status && target->resume)
        status = resume_commit(target->resume, target->file, sync, err);
    else if (!status)
        status = imgtk_storage_commit(target->file, sync, err);
    return status ? imgtk_fail_prefix(err, "%s", target->wish->name) : 0;
}

void target_close(struct target *target)
{
    if (target->writer)
        target->driver->writer_close(target->writer);
    references_free(target->references);
    imgtk_storage_close(target->file);
    resume_close(target->resume);
    imgtk_opts_free(target->opts);
    memset(target, 0, sizeof(*target));
}
