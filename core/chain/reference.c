#include "reference.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "beneath.h"
#include "context/context.h"
#include "storage/storage.h"

enum { MAX_LINKS = 40 };

struct imgtk_references {
    struct imgtk_context *context;
    bool forbidden;
    bool on_file;      /* the image is a file, so it has a folder */
    char *location;    /* the path or URL of the image */
    const char *image_name;
    struct metadata_meter *metadata; /* of what is opened; NULL: none */
    references_guard_fn guard; /* NULL: none */
    void *guard_context;
    struct imgtk_storage **created;
    size_t created_count;
};

/* ---- The image's own place ------------------------------------------------------------ */

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int references_new(struct imgtk_context *context, const char *image_name, bool forbidden,
                   struct imgtk_references **out, struct imgtk_error *err)
{
    *out = NULL;
    struct storage_name parsed;
    int status = storage_name_parse(context, image_name, &parsed, err);
    if (status)
        return status;
    struct imgtk_references *refs = calloc(1, sizeof(*refs));
    char *location = strdup(parsed.kind == STORAGE_NAME_PATH ? parsed.path : image_name);
    if (!refs || !location) {
        free(refs);
        free(location);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    if (parsed.kind == STORAGE_NAME_MODULE) /* a query may hold slashes, and is not the image's place */
        location[strcspn(location, "?#")] = '\0';
    refs->context = context;
    refs->forbidden = forbidden;
    refs->on_file = parsed.kind == STORAGE_NAME_PATH;
    refs->location = location;
    bool named = parsed.kind == STORAGE_NAME_PATH || parsed.kind == STORAGE_NAME_MODULE;
    refs->image_name = named ? last_component(location) : "disk";
    *out = refs;
    return 0;
}

void references_set_guard(struct imgtk_references *refs, references_guard_fn guard, void *context)
{
    refs->guard = guard;
    refs->guard_context = context;
}

void references_set_meter(struct imgtk_references *refs, struct metadata_meter *meter)
{
    refs->metadata = meter;
}

void references_free(struct imgtk_references *refs)
{
    if (!refs)
        return;
    for (size_t i = 0; i < refs->created_count; i++)
        imgtk_storage_close(refs->created[i]);
    free(refs->created);
    free(refs->location);
    free(refs);
}

const char *imgtk_references_image_name(const struct imgtk_references *refs)
{
    return refs->image_name;
}

/* name as counted from the image's folder, in the form in which the image was named. */
static int join(const struct imgtk_references *refs, const char *name, char out[PATH_MAX], struct imgtk_error *err)
{
    int folder_length = name[0] == '/' ? 0 : (int)(last_component(refs->location) - refs->location);
    int length = snprintf(out, PATH_MAX, "%.*s%s", folder_length, refs->location, name);
    if (length < 0 || length >= PATH_MAX)
        return imgtk_fail(err, IMGTK_ELIMIT, "refers to a file whose path of %d bytes is beyond the limit of %d", length,
                          PATH_MAX - 1);
    return 0;
}

/* ---- Policy: beneath --------------------------------------------------------------------- */

struct root {
    int folder;            /* O_PATH; -1: cannot be opened, so nothing is beneath it */
    char given[PATH_MAX];  /* absolute and normalised, links in it kept; "" when it has no such form */
    char real[PATH_MAX];   /* without links */
};

static void root_open(struct root *root, const char *path)
{
    char absolute[2 * PATH_MAX];
    char cwd[PATH_MAX];
    root->given[0] = '\0';
    root->folder = -1;
    if (!realpath(path, root->real))
        return;
    if (path[0] == '/')
        snprintf(absolute, sizeof(absolute), "%s", path);
    else if (getcwd(cwd, sizeof(cwd)))
        snprintf(absolute, sizeof(absolute), "%s/%s", cwd, path);
    else
        absolute[0] = '\0';
    if (!path_normalise(absolute, root->given))
        root->given[0] = '\0';
    root->folder = open(root->real, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void root_close(struct root *root)
{
    if (root->folder >= 0)
        close(root->folder);
}

static const char *beneath_root(const struct root *root, const char *path)
{
    if (root->folder < 0)
        return NULL;
    const char *rest = path_beneath(path, root->real);
    return rest || !root->given[0] ? rest : path_beneath(path, root->given);
}

struct search {
    const struct imgtk_references *refs;
    const char *name;    /* as the image has it */
    int access;
    struct root *root;   /* the one that is looked at; only one is open at a time */
    char path[PATH_MAX]; /* absolute and normalised: where the name leads, as far as links have been resolved */
};

/* Puts the link's target in place of the link: it may lead into another allowed folder. */
static bool follow_link(struct search *search, const char *rest)
{
    struct beneath_link link;
    char joined[4 * PATH_MAX + 4];
    if (!beneath_find_link(search->root->folder, rest, &link))
        return false;
    if (link.target[0] == '/')
        snprintf(joined, sizeof(joined), "%s/%s", link.target, link.after);
    else
        snprintf(joined, sizeof(joined), "%s/%.*s/%s/%s", search->root->real, link.before, rest, link.target, link.after);
    return path_normalise(joined, search->path);
}

/* Looks beneath one folder. -1 with EXDEV: not there; *moved: a link leads out of it, and search->path follows it. */
static int search_root(struct search *search, const char *folder, bool *moved)
{
    *moved = false;
    root_open(search->root, folder);
    const char *rest = beneath_root(search->root, search->path);
    int fd = -1;
    int saved = EXDEV;
    if (rest) {
        fd = beneath_open(search->root->folder, rest, search->access);
        saved = errno;
        if (fd < 0 && saved == EXDEV)
            *moved = follow_link(search, rest);
    }
    root_close(search->root);
    errno = saved;
    return fd;
}

/* -1 with EXDEV: beneath none of the folders. */
static int search_roots(struct search *search, const char *image_folder)
{
    const struct config *config = &search->refs->context->config;
    for (int links = 0; links <= MAX_LINKS; links++) {
        bool moved = false;
        for (size_t i = 0; i <= config->allow_dir_count && !moved; i++) {
            int fd = search_root(search, i == 0 ? image_folder : config->allow_dirs[i - 1], &moved);
            if (fd >= 0 || errno != EXDEV)
                return fd;
        }
        if (!moved)
            break;
    }
    errno = EXDEV;
    return -1;
}

static int open_beneath(struct search *search, const char *image_folder)
{
    char joined[2 * PATH_MAX];
    if (search->name[0] == '/')
        return path_normalise(search->name, search->path) ? search_roots(search, image_folder) : -1;
    /* The kernel's own resolution first: it knows what ".." after a link means. */
    root_open(search->root, image_folder);
    if (search->root->folder < 0)
        return -1;
    int fd = beneath_open(search->root->folder, search->name, search->access);
    int saved = errno;
    snprintf(joined, sizeof(joined), "%s/%s", search->root->real, search->name);
    root_close(search->root);
    errno = saved;
    if (fd >= 0 || saved != EXDEV || !path_normalise(joined, search->path))
        return fd;
    return search_roots(search, image_folder);
}

static int fail_beneath(const char *name, const char *folder, const char *shown, struct imgtk_error *err)
{
    if (errno == EXDEV)
        return imgtk_fail(err, IMGTK_EREFUSED,
                          "refers to '%s', which is outside '%s': allow it with --allow-dir DIR or --references=any", name,
                          folder);
    if (errno == EMEDIUMTYPE)
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', which is not a regular file", name);
    return imgtk_fail_errno(err, errno, "Could not open '%s'", shown);
}

static int image_folder(const struct imgtk_references *refs, char out[PATH_MAX], struct imgtk_error *err)
{
    int status = join(refs, "", out, err);
    if (status)
        return status;
    size_t length = strlen(out);
    if (length == 0)
        memcpy(out, ".", sizeof("."));
    else if (length > 1)
        out[length - 1] = '\0'; /* the slash */
    return 0;
}

static int reference_beneath(const struct imgtk_references *refs, const char *name, uint32_t flags,
                             struct imgtk_storage **out, struct imgtk_error *err)
{
    char folder[PATH_MAX], shown[PATH_MAX];
    if (!refs->on_file)
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', and is not in a folder: allow it with --references=any",
                          name);
    if (storage_name_has_scheme(name))
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', which is not a file: allow it with --references=any",
                          name);
    int status = join(refs, name, shown, err);
    if (status == 0)
        status = image_folder(refs, folder, err);
    if (status)
        return status;
    struct root root;
    struct search search = {
        .refs = refs,
        .name = name,
        .access = flags & IMGTK_STORAGE_WRITABLE ? O_RDWR : O_RDONLY,
        .root = &root,
    };
    int fd = open_beneath(&search, folder);
    if (fd < 0)
        return fail_beneath(name, folder, shown, err);
    return file_from_fd(fd, shown, flags, out, err);
}

/* ---- Policy: any ----------------------------------------------------------------------------- */

static bool is_file_or_device(mode_t mode)
{
    return S_ISREG(mode) || S_ISBLK(mode);
}

/* Even then nothing is opened that could hang or that reads differently every time. */
static int open_any_path(const char *path, const char *name, uint32_t flags, struct imgtk_storage **out,
                         struct imgtk_error *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", path);
    int fd = -1;
    if (is_file_or_device(st.st_mode)) {
        fd = open(path, (flags & IMGTK_STORAGE_WRITABLE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
            return imgtk_fail_errno(err, errno, "Could not open '%s'", path);
    }
    if (fd < 0 || fstat(fd, &st) < 0 || !is_file_or_device(st.st_mode)) {
        if (fd >= 0)
            close(fd);
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', which is neither a regular file nor a block device", name);
    }
    return file_from_fd(fd, path, flags, out, err);
}

static int reference_any(const struct imgtk_references *refs, const char *name, uint32_t flags,
                         struct imgtk_storage **out, struct imgtk_error *err)
{
    char path[PATH_MAX];
    if (strncmp(name, "json:", 5) == 0)
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%.200s': QEMU's json: names are not opened", name);
    if (storage_name_has_scheme(name))
        return imgtk_storage_open(refs->context, name, flags, NULL, out, err);
    bool on_host = strstr(refs->location, "://") && !strstr(refs->location, ":///");
    if (name[0] != '/' && !refs->on_file && !on_host)
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', and is not in a folder that this could be counted from",
                          name);
    int status = join(refs, name, path, err);
    if (status)
        return status;
    if (name[0] != '/' && !refs->on_file)
        return imgtk_storage_open(refs->context, path, flags, NULL, out, err);
    return open_any_path(path, name, flags, out, err);
}

/* A file that imgtk_reference_create() has made under that name and that may not have it yet; NULL: there is none. */
static struct imgtk_storage *find_created(const struct imgtk_references *refs, const char *name)
{
    char path[PATH_MAX];
    if (refs->created_count == 0 || join(refs, name, path, NULL))
        return NULL;
    for (size_t i = 0; i < refs->created_count; i++)
        if (strcmp(imgtk_storage_name(refs->created[i]), path) == 0)
            return refs->created[i];
    return NULL;
}

static int open_created(const struct imgtk_storage *created, uint32_t flags, struct imgtk_storage **out,
                        struct imgtk_error *err)
{
    int fd = fcntl(created->ops.fd(created->handle), F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", imgtk_storage_name(created));
    return file_from_fd(fd, imgtk_storage_name(created), flags, out, err);
}

static int open_by_policy(struct imgtk_references *refs, const char *name, uint32_t flags, struct imgtk_storage **out,
                          struct imgtk_error *err)
{
    switch (imgtk_context_references(refs->context)) {
    case IMGTK_REFERENCES_BENEATH:
        return reference_beneath(refs, name, flags, out, err);
    case IMGTK_REFERENCES_ANY:
        return reference_any(refs, name, flags, out, err);
    default:
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', which %s forbids", name,
                          refs->context->config.trust == IMGTK_TRUSTED ? "--references=none" : "--untrusted");
    }
}

int imgtk_reference_open(struct imgtk_references *refs, const char *name, uint32_t flags, struct imgtk_storage **out,
                         struct imgtk_error *err)
{
    *out = NULL;
    if (name[0] == '\0')
        return imgtk_fail(err, IMGTK_ECORRUPT, "refers to a file without a name");
    struct imgtk_storage *created = find_created(refs, name);
    if (created)
        return open_created(created, flags, out, err);
    if (refs->forbidden)
        return imgtk_fail(err, IMGTK_EREFUSED, "refers to '%s', and no reference is followed here", name);
    int status = open_by_policy(refs, name, flags, out, err);
    if (status)
        return status;
    context_note(refs->context, "reference: '%s' is opened, --references=%s allows it", imgtk_storage_name(*out),
                 imgtk_context_references(refs->context) == IMGTK_REFERENCES_ANY ? "any" : "beneath");
    (*out)->metadata = refs->metadata;
    if (flags & IMGTK_STORAGE_WRITABLE)
        (*out)->output.meter = &refs->context->output;
    return 0;
}

int imgtk_reference_spool(struct imgtk_references *refs, struct imgtk_storage **out, struct imgtk_error *err)
{
    return context_spool(refs->context, out, err);
}

/* ---- Creating ---------------------------------------------------------------------------------- */

static int keep_created(struct imgtk_references *refs, struct imgtk_storage *storage, struct imgtk_error *err)
{
    size_t size = (refs->created_count + 1) * sizeof(struct imgtk_storage *);
    struct imgtk_storage **created = realloc(refs->created, size);
    if (!created)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    created[refs->created_count++] = storage;
    refs->created = created;
    return 0;
}

int imgtk_reference_create(struct imgtk_references *refs, const char *name, struct imgtk_storage **out,
                           struct imgtk_error *err)
{
    *out = NULL;
    char path[PATH_MAX];
    if (name[0] != '/' && !refs->on_file)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the image is not in a folder where '%s' could be made beside it", name);
    int status = join(refs, name, path, err);
    struct imgtk_storage *storage = NULL;
    if (status == 0 && refs->guard)
        status = refs->guard(refs->guard_context, path, err);
    if (status == 0)
        status = file_create(path, context_new_file_access(refs->context), &storage, err);
    if (status == 0)
        storage->output.meter = &refs->context->output;
    if (status == 0)
        status = keep_created(refs, storage, err);
    if (status) {
        imgtk_storage_close(storage);
        return status;
    }
    *out = storage;
    return 0;
}

bool references_have_created(const struct imgtk_references *refs)
{
    return refs->created_count > 0;
}

int references_settle(struct imgtk_references *refs, bool sync, struct imgtk_error *err)
{
    for (size_t i = 0; i < refs->created_count; i++) {
        int status = sync ? imgtk_storage_flush(refs->created[i], err) : 0;
        if (status)
            return imgtk_fail_prefix(err, "%s", imgtk_storage_name(refs->created[i]));
        imgtk_storage_drop_cache(refs->created[i]);
    }
    return 0;
}

int references_commit(struct imgtk_references *refs, bool sync, struct imgtk_error *err)
{
    for (size_t i = 0; i < refs->created_count; i++) {
        int status = imgtk_storage_commit(refs->created[i], sync, err);
        if (status)
            return imgtk_fail_prefix(err, "%s", imgtk_storage_name(refs->created[i]));
    }
    return 0;
}
