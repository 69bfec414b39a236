/* From a name to an open storage. Names come from the user here: what an image names goes through reference.c. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "context/context.h"
#include "opts_shared.h"
#include "storage/storage.h"

bool storage_name_has_scheme(const char *name)
{
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || (length > 0 && strchr("+-.", name[length]) && name[length]))
        length++;
    return length > 0 && isalpha((unsigned char)name[0]) && name[length] == ':';
}

int storage_name_parse(struct imgtk_context *context, const char *name, struct storage_name *out,
                       struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    out->kind = STORAGE_NAME_PATH;
    out->path = name;
    if (strcmp(name, "-") == 0) {
        out->kind = STORAGE_NAME_STDIO;
    } else if (strncmp(name, "fd:", 3) == 0) {
        out->kind = STORAGE_NAME_FD;
    } else if (strncmp(name, "null:", 5) == 0) {
        out->kind = STORAGE_NAME_NULL;
    } else if (strncmp(name, "file:", 5) == 0) {
        out->path = name + 5;
    } else if (name[0] == '[' || storage_name_has_scheme(name)) {
        int status = registry_storage_for(context, name, &out->ops, err);
        if (status)
            return status;
        if (out->ops)
            out->kind = STORAGE_NAME_MODULE;
    }
    return 0;
}

int imgtk_name_parse(struct imgtk_context *context, const char *name, enum imgtk_name_kind *kind, const char **path,
                     struct imgtk_error *err)
{
    static const enum imgtk_name_kind kinds[] = {
        [STORAGE_NAME_PATH] = IMGTK_NAME_PATH, [STORAGE_NAME_STDIO] = IMGTK_NAME_DESCRIPTOR,
        [STORAGE_NAME_FD] = IMGTK_NAME_DESCRIPTOR, [STORAGE_NAME_NULL] = IMGTK_NAME_NULL,
        [STORAGE_NAME_MODULE] = IMGTK_NAME_MODULE,
    };
    struct storage_name parsed;
    int status = storage_name_parse(context, name, &parsed, err);
    *kind = kinds[parsed.kind];
    *path = parsed.path;
    return status;
}

/* ---- Modules ---------------------------------------------------------------- */

/*
 * A URL without what is secret: who the user is, and the query when there is a
 * host (a signed URL's key is there; that of nbd+unix:///?socket= names a file).
 */
static char *name_without_secrets(const char *name)
{
    char *copy = strdup(name);
    if (copy)
        imgtk_hide_credentials(copy);
    char *host = copy ? strstr(copy, "://") : NULL;
    char *query = host ? strchr(host, '?') : NULL;
    if (query && host[3] != '/' && host + 3 != query)
        query[1] = '\0';
    return copy;
}

static int call_open(const struct imgtk_context *context, const struct imgtk_storage_ops *ops, const char *name,
                     uint32_t flags, const struct imgtk_opts *opts, void **handle, struct imgtk_error *err)
{
    if (!ops->open_cancellable)
        return ops->open(name, flags, opts, handle, err);
    return ops->open_cancellable(name, flags, opts, context->cancel, handle, err);
}

static int open_with_ops(const struct imgtk_context *context, const struct imgtk_storage_ops *ops, const char *name,
                         uint32_t flags, const struct imgtk_opts *opts, struct imgtk_storage **out,
                         struct imgtk_error *err)
{
    void *handle = NULL;
    char *shown = name_without_secrets(name);
    if (!shown)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = call_open(context, ops, name, flags, opts, &handle, err);
    if (status)
        imgtk_fail_prefix(err, "Could not open '%s'", shown);
    else
        status = storage_wrap(ops, handle, shown, out, err);
    free(shown);
    return status;
}

/* One --storage-opts serves all storages of a job. */
static bool is_of_another_module(void *context, const char *option)
{
    return registry_storage_has_option(context, option);
}

static int open_module(struct imgtk_context *context, const struct imgtk_storage_ops *ops, const char *name,
                       uint32_t flags, const char *options, struct imgtk_storage **out, struct imgtk_error *err)
{
    struct imgtk_storage_ops complete; /* a module built for an older ABI has a shorter table */
    int status = storage_ops_complete(ops, &complete, err);
    if (status)
        return status;
    struct imgtk_opts *opts = imgtk_opts_new(complete.opts);
    if (!opts)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (context->storage_options)
        status = opts_parse_shared(opts, complete.name, context->storage_options, is_of_another_module, context, err);
    if (status == 0 && options)
        status = imgtk_opts_parse(opts, complete.name, options, err);
    if (status == 0)
        status = open_with_ops(context, &complete, name, flags, opts, out, err);
    imgtk_opts_free(opts);
    return status;
}

/* ---- Descriptors --------------------------------------------------------------- */

static int open_stdio(uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    bool writable = flags & IMGTK_STORAGE_WRITABLE;
    const char *what = writable ? "standard output" : "standard input";
    int fd = fcntl(writable ? STDOUT_FILENO : STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open %s", what);
    if (writable && isatty(fd)) {
        close(fd);
        return imgtk_fail(err, IMGTK_EINVAL, "an image is not written to a terminal: redirect standard output");
    }
    /* Whoever redirected stdin may have read a part of the file: then it goes on from there, as a pipe does. */
    if (writable || lseek(fd, 0, SEEK_CUR) > 0)
        return pipe_from_fd(fd, "-", flags, out, err);
    return storage_from_fd(fd, "-", flags, out, err);
}

static int parse_fd(const char *name, int *out, struct imgtk_error *err)
{
    const char *digits = name + strlen("fd:");
    char *end;
    errno = 0;
    long number = strtol(digits, &end, 10);
    if (!isdigit((unsigned char)digits[0]) || *end != '\0' || errno || number > INT32_MAX)
        return imgtk_fail(err, IMGTK_EINVAL, "'%s' is not a file descriptor: write fd:NUMBER", name);
    *out = (int)number;
    return 0;
}

static int open_fd(const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    int number = -1;
    int status = parse_fd(name, &number, err);
    if (status)
        return status;
    int fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", name);
    return storage_from_fd(fd, name, flags, out, err);
}

static int check_access_mode(int fd, const char *name, uint32_t flags, struct imgtk_error *err)
{
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0)
        return imgtk_fail_errno(err, errno, "%s: cannot ask how it is open", name);
    mode &= O_ACCMODE;
    if ((flags & IMGTK_STORAGE_WRITABLE) && mode == O_RDONLY)
        return imgtk_fail(err, IMGTK_EINVAL, "Could not open '%s': it is open for reading only", name);
    if (!(flags & IMGTK_STORAGE_WRITABLE) && mode == O_WRONLY)
        return imgtk_fail(err, IMGTK_EINVAL, "Could not open '%s': it is open for writing only", name);
    return 0;
}

int storage_from_fd(int fd, const char *name, uint32_t flags, struct imgtk_storage **out, struct imgtk_error *err)
{
    *out = NULL;
    struct stat st;
    int status = check_access_mode(fd, name, flags, err);
    if (status == 0 && fstat(fd, &st) < 0)
        status = imgtk_fail_errno(err, errno, "%s: cannot ask what it is", name);
    else if (status == 0 && S_ISDIR(st.st_mode))
        status = imgtk_fail_errno(err, EISDIR, "Could not open '%s'", name);
    if (status) {
        close(fd);
        return status;
    }
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return file_from_fd(fd, name, flags, out, err);
    return pipe_from_fd(fd, name, flags, out, err);
}

/* ---- Paths ------------------------------------------------------------------------ */

static int fail_open(const char *name, const char *path, int os_errno, struct imgtk_error *err)
{
    const char *module = os_errno == ENOENT ? registry_storage_module(name) : NULL;
    if (module)
        return imgtk_fail(err, IMGTK_ENOTFOUND,
                          "Could not open '%s': no usable module opens such names: install imgtk-storage-%s", name, module);
    if (os_errno == ENOENT && storage_name_has_scheme(name) && strstr(name, "://"))
        return imgtk_fail(err, IMGTK_ENOTFOUND, "Could not open '%s': no installed module opens '%.*s://' names", name,
                          (int)(strchr(name, ':') - name), name);
    return imgtk_fail_errno(err, os_errno, "Could not open '%s'", path);
}

static int open_path(const char *name, const char *path, uint32_t flags, struct imgtk_storage **out,
                     struct imgtk_error *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fail_open(name, path, errno, err);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
        return pipe_open(path, flags, out, err);
    if (S_ISDIR(st.st_mode))
        return fail_open(name, path, EISDIR, err);
    int mode = flags & IMGTK_STORAGE_WRITABLE ? O_RDWR : O_RDONLY;
    /* Not blocking, should the file have become a FIFO since; on a drive it would mean "without a medium". */
    int nonblock = S_ISREG(st.st_mode) ? O_NONBLOCK : 0;
    int fd = open(path, mode | O_CLOEXEC | O_NOCTTY | nonblock);
    if (fd < 0)
        return fail_open(name, path, errno, err);
    return storage_from_fd(fd, path, flags, out, err);
}

static int refuse_options(const char *options, struct imgtk_error *err)
{
    if (!options)
        return 0;
    struct imgtk_opts *none = imgtk_opts_new(NULL);
    if (!none)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    int status = imgtk_opts_parse(none, "file", options, err);
    imgtk_opts_free(none);
    return status;
}

static int open_parsed(struct imgtk_context *context, const struct storage_name *parsed, const char *name,
                       uint32_t flags, const char *options, struct imgtk_storage **out, struct imgtk_error *err)
{
    if (parsed->kind == STORAGE_NAME_MODULE)
        return open_module(context, parsed->ops, name, flags, options, out, err);
    int status = refuse_options(options, err);
    if (status)
        return status;
    switch (parsed->kind) {
    case STORAGE_NAME_STDIO:
        return open_stdio(flags, out, err);
    case STORAGE_NAME_FD:
        return open_fd(name, flags, out, err);
    case STORAGE_NAME_NULL:
        return null_open(name, out, err);
    default:
        return open_path(name, parsed->path, flags, out, err);
    }
}

/* What goes to "null:" takes up nothing. */
static void count_output(struct imgtk_context *context, const struct storage_name *parsed, struct imgtk_storage *storage)
{
    if (parsed->kind != STORAGE_NAME_NULL && (storage->flags & IMGTK_STORAGE_WRITABLE))
        storage->output.meter = &context->output;
}

int imgtk_storage_open(struct imgtk_context *context, const char *name, uint32_t flags, const char *options,
                       struct imgtk_storage **out, struct imgtk_error *err)
{
    *out = NULL;
    struct storage_name parsed;
    int status = storage_name_parse(context, name, &parsed, err);
    if (!status)
        status = open_parsed(context, &parsed, name, flags, options, out, err);
    if (!status)
        count_output(context, &parsed, *out);
    return status;
}

/* ---- Creating ------------------------------------------------------------------------ */

static int create_on_fd(const char *name, struct imgtk_storage **out, struct imgtk_error *err)
{
    int number = -1;
    int status = parse_fd(name, &number, err);
    if (status)
        return status;
    int fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", name);
    status = check_access_mode(fd, name, IMGTK_STORAGE_WRITABLE, err);
    if (status) {
        close(fd);
        return status;
    }
    return pipe_from_fd(fd, name, IMGTK_STORAGE_WRITABLE, out, err);
}

static int create_parsed(struct imgtk_context *context, const struct storage_name *parsed, const char *name,
                         struct imgtk_storage **out, struct imgtk_error *err)
{
    switch (parsed->kind) {
    case STORAGE_NAME_STDIO:
        return open_stdio(IMGTK_STORAGE_WRITABLE, out, err);
    case STORAGE_NAME_FD:
        return create_on_fd(name, out, err);
    case STORAGE_NAME_NULL:
        return null_open(name, out, err);
    case STORAGE_NAME_MODULE:
        return open_module(context, parsed->ops, name, IMGTK_STORAGE_WRITABLE, NULL, out, err);
    default:
        return file_create(parsed->path, context_new_file_access(context), out, err);
    }
}

int imgtk_storage_create(struct imgtk_context *context, const char *name, struct imgtk_storage **out,
                         struct imgtk_error *err)
{
    *out = NULL;
    struct storage_name parsed;
    int status = storage_name_parse(context, name, &parsed, err);
    if (!status)
        status = create_parsed(context, &parsed, name, out, err);
    if (!status)
        count_output(context, &parsed, *out);
    return status;
}
