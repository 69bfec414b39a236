/*
 * A new file that has no name until it is complete. It is made without one
 * (O_TMPFILE) in the folder where it shall be; where the file system cannot do
 * that, under a hidden name that is removed when nothing is committed.
 */
#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINKS = 40, NAME_TRIES = 100 };

struct file_new {
    int folder;                    /* O_PATH: survives a rename of the folder */
    char name[NAME_MAX + 1];       /* within the folder */
    char hidden[NAME_MAX + 1];     /* the temporary name in use; "" when there is none */
};

void file_new_free(struct file_new *new_file)
{
    if (!new_file)
        return;
    if (new_file->hidden[0])
        unlinkat(new_file->folder, new_file->hidden, 0);
    if (new_file->folder >= 0)
        close(new_file->folder);
    free(new_file);
}

/* ---- Where it goes ----------------------------------------------------------------- */

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Replaces path by what the link at its end points to; false when that is too long. */
static bool follow_link(char path[PATH_MAX], const char *target)
{
    char joined[2 * PATH_MAX];
    int folder_length = target[0] == '/' ? 0 : (int)(last_component(path) - path);
    int length = snprintf(joined, sizeof(joined), "%.*s%s", folder_length, path, target);
    if (length < 0 || length >= PATH_MAX)
        return false;
    memcpy(path, joined, (size_t)length + 1);
    return true;
}

/* A link is kept, and what it points to is replaced, whether it exists or not. */
static int resolve_links(const char *name, char path[PATH_MAX], struct imgtk_error *err)
{
    if (strlen(name) >= PATH_MAX)
        return imgtk_fail_errno(err, ENAMETOOLONG, "Could not create a file");
    memcpy(path, name, strlen(name) + 1);
    for (int i = 0; i < MAX_LINKS; i++) {
        char target[PATH_MAX];
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        if (length < 0)
            return 0; /* not a link, or not there; opening the folder will tell what else may be wrong */
        target[length] = '\0';
        if (!follow_link(path, target))
            return imgtk_fail_errno(err, ENAMETOOLONG, "Could not create '%s'", name);
    }
    return imgtk_fail_errno(err, ELOOP, "Could not create '%s'", name);
}

static int open_folder(const char *path, struct file_new *new_file, struct imgtk_error *err)
{
    const char *last = last_component(path);
    char folder[PATH_MAX];
    snprintf(folder, sizeof(folder), "%.*s", (int)(last - path), path);
    if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return imgtk_fail_errno(err, last == path && !last[0] ? ENOENT : EISDIR, "Could not create '%s'", path);
    if (strlen(last) > NAME_MAX)
        return imgtk_fail_errno(err, ENAMETOOLONG, "Could not create '%s'", path);
    memcpy(new_file->name, last, strlen(last) + 1);
    new_file->folder = open(folder[0] ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (new_file->folder < 0)
        return imgtk_fail_errno(err, errno, "Could not create '%s'", path);
    return 0;
}

/* ---- A descriptor for it ------------------------------------------------------------ */

/* ".NAME.imgtk-XXXXXX", NAME shortened where it must be */
static void make_hidden_name(struct file_new *new_file)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
    unsigned char random[6] = { 0 };
    char suffix[sizeof(random) + 1] = "";
    if (getrandom(random, sizeof(random), GRND_NONBLOCK) < 0)
        random[0] = (unsigned char)getpid(); /* early at boot; a name that is taken is tried again */
    for (size_t i = 0; i < sizeof(random); i++)
        suffix[i] = digits[random[i] % 32];
    int room = NAME_MAX - (int)strlen("..imgtk-") - (int)sizeof(random);
    snprintf(new_file->hidden, sizeof(new_file->hidden), ".%.*s.imgtk-%s", room, new_file->name, suffix);
}

/* Whether a file without a name can be given one later: through /proc, which a confined process may lack. */
static bool can_link_later(int fd, char proc_path[32])
{
    snprintf(proc_path, 32, "/proc/self/fd/%d", fd);
    return access(proc_path, F_OK) == 0;
}

static int open_nameless(const struct file_new *new_file, int access_mode, mode_t permissions)
{
    char proc_path[32];
    int fd = openat(new_file->folder, ".", O_TMPFILE | access_mode | O_CLOEXEC, permissions);
    if (fd < 0 || can_link_later(fd, proc_path))
        return fd;
    close(fd);
    errno = EOPNOTSUPP;
    return -1;
}

static int open_hidden(struct file_new *new_file, int access_mode, mode_t permissions)
{
    for (int i = 0; i < NAME_TRIES; i++) {
        make_hidden_name(new_file);
        int fd = openat(new_file->folder, new_file->hidden, O_CREAT | O_EXCL | access_mode | O_CLOEXEC | O_NOFOLLOW,
                        permissions);
        if (fd >= 0 || errno != EEXIST) {
            if (fd < 0)
                new_file->hidden[0] = '\0';
            return fd;
        }
    }
    new_file->hidden[0] = '\0';
    return -1;
}

/* A file system without O_TMPFILE says so in several ways, and so does a kernel without it. */
static int open_new(struct file_new *new_file, int access_mode, mode_t permissions)
{
    int fd = open_nameless(new_file, access_mode, permissions);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT || errno == ENOSYS))
        fd = open_hidden(new_file, access_mode, permissions);
    return fd;
}

mode_t file_first_permissions(const struct stat *old)
{
    return old->st_mode ? S_IRUSR | S_IWUSR : 0666;
}

/* The owner goes first, since changing it drops mode bits; it may not be ours to give. */
int file_take_over_mode(int fd, const struct stat *old, struct imgtk_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return imgtk_fail_errno(err, errno, "cannot ask for the permissions");
    if ((st.st_uid != old->st_uid || st.st_gid != old->st_gid) && fchown(fd, old->st_uid, old->st_gid) < 0)
        (void)!fchown(fd, (uid_t)-1, old->st_gid);
    if (fchmod(fd, old->st_mode & 0777) < 0)
        return imgtk_fail_errno(err, errno, "cannot keep the permissions");
    return 0;
}

/* name: the user's; path: where it leads through links; old: what is replaced there, see file_place() */
static int create_file(const char *name, const char *path, const struct stat *old, int access_mode,
                       struct imgtk_storage **out, struct imgtk_error *err)
{
    struct file_new *new_file = calloc(1, sizeof(*new_file));
    if (!new_file)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    new_file->folder = -1;
    int fd = -1;
    int status = open_folder(path, new_file, err);
    if (status == 0) {
        fd = open_new(new_file, access_mode, file_first_permissions(old));
        status = fd < 0 ? imgtk_fail_errno(err, errno, "Could not create '%s'", path) : 0;
    }
    if (status == 0 && old->st_mode)
        status = file_take_over_mode(fd, old, err);
    if (status) {
        if (fd >= 0)
            close(fd);
        file_new_free(new_file);
        return status;
    }
    return file_wrap(fd, name, IMGTK_STORAGE_WRITABLE, new_file, out, err);
}

int file_place(const char *path, char resolved[PATH_MAX], struct stat *old, struct imgtk_error *err)
{
    if (stat(path, old) < 0) {
        memset(old, 0, sizeof(*old));
        if (errno != ENOENT)
            return imgtk_fail_errno(err, errno, "Could not create '%s'", path);
        return resolve_links(path, resolved, err);
    }
    if (S_ISBLK(old->st_mode))
        return imgtk_fail(err, IMGTK_EINVAL, "'%s' is a block device: write to it with -n", path);
    if (!S_ISREG(old->st_mode))
        return imgtk_fail_errno(err, S_ISDIR(old->st_mode) ? EISDIR : EINVAL, "Could not create '%s'", path);
    /* Replacing needs no permission on the file itself, but taking it away is the same to its owner. */
    if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
        return imgtk_fail_errno(err, errno, "Could not create '%s'", path);
    return resolve_links(path, resolved, err);
}

/* What is there already decides: a file is replaced if it may be written, a device is not replaced by a file. */
int file_create(const char *path, int access_mode, struct imgtk_storage **out, struct imgtk_error *err)
{
    char resolved[PATH_MAX];
    struct stat old;
    if (stat(path, &old) == 0 && (S_ISFIFO(old.st_mode) || S_ISCHR(old.st_mode)))
        return pipe_open(path, IMGTK_STORAGE_WRITABLE, out, err);
    int status = file_place(path, resolved, &old, err);
    return status ? status : create_file(path, resolved, &old, access_mode, out, err);
}

/* ---- Giving it its name ---------------------------------------------------------------- */

static int sync_file(int fd, struct imgtk_error *err)
{
    int result;
    do
        result = fsync(fd);
    while (result < 0 && errno == EINTR);
    return result < 0 ? imgtk_fail_errno(err, errno, "cannot bring the file to the disk") : 0;
}

/* Without waiting for a disk: a file server's client may keep what it was given until a descriptor is closed. */
static int hand_over(int fd, struct imgtk_error *err)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy >= 0 && close(copy) < 0 && errno != EINTR)
        return imgtk_fail_errno(err, errno, "cannot close the file");
    return 0;
}

/* A folder that may be searched but not read cannot be opened for fsync(); its whole file system is synced then. */
static int sync_folder(const struct file_new *new_file, int fd, struct imgtk_error *err)
{
    int folder = openat(new_file->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return syncfs(fd) < 0 ? imgtk_fail_errno(err, errno, "cannot bring the folder to the disk") : 0;
    int status = sync_file(folder, err);
    close(folder);
    return status;
}

static int link_hidden(struct file_new *new_file, const char *proc_path)
{
    for (int i = 0; i < NAME_TRIES; i++) {
        make_hidden_name(new_file);
        if (linkat(AT_FDCWD, proc_path, new_file->folder, new_file->hidden, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    new_file->hidden[0] = '\0';
    return -1;
}

/* linkat() replaces nothing, rename() does; so a file that is there is replaced by way of a hidden name. */
static int give_name(struct file *file)
{
    struct file_new *new_file = file->new_file;
    if (!new_file->hidden[0]) {
        char proc_path[32];
        snprintf(proc_path, sizeof(proc_path), "/proc/self/fd/%d", file->fd);
        if (linkat(AT_FDCWD, proc_path, new_file->folder, new_file->name, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        if (errno != EEXIST || link_hidden(new_file, proc_path) < 0)
            return -1;
    }
    if (renameat(new_file->folder, new_file->hidden, new_file->folder, new_file->name) < 0)
        return -1;
    new_file->hidden[0] = '\0';
    return 0;
}

int file_commit(void *handle, bool sync, struct imgtk_error *err)
{
    struct file *file = handle;
    struct file_new *new_file = file->new_file;
    if (!new_file)
        return sync ? file_flush(file, err) : hand_over(file->fd, err);
    int status = file_append_end(file, err);
    if (!status)
        status = sync ? sync_file(file->fd, err) : hand_over(file->fd, err);
    if (status)
        return status;
    if (give_name(file) < 0)
        return imgtk_fail_errno(err, errno, "Could not give the file its name '%s'", new_file->name);
    if (sync)
        status = sync_folder(new_file, file->fd, err);
    file->new_file = NULL;
    file_new_free(new_file);
    return status;
}
