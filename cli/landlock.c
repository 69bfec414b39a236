#include "landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of later kernels than the headers; each with the interface's version that brought it. */
#define ACCESS_REFER (1ull << 13)     /* 2 */
#define ACCESS_TRUNCATE (1ull << 14)  /* 3 */
#define ACCESS_IOCTL_DEV (1ull << 15) /* 5 */
#define NET_BIND_TCP (1ull << 0)      /* 4 */
#define NET_CONNECT_TCP (1ull << 1)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ull << 0) /* 6 */
#define SCOPE_SIGNAL (1ull << 1)

#define READING (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | \
                 ACCESS_IOCTL_DEV)
#define MAKING (LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG)
#define WRITING (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_CHAR | \
                 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | \
                 LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM | ACCESS_REFER | ACCESS_TRUNCATE | MAKING)

struct attributes {
    uint64_t fs, net, scoped;
};

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi > 0 ? (int)abi : 0;
}

static uint64_t known(uint64_t access, int abi)
{
    if (abi < 2)
        access &= ~ACCESS_REFER;
    if (abi < 3)
        access &= ~ACCESS_TRUNCATE;
    return abi < 5 ? access & ~ACCESS_IOCTL_DEV : access;
}

int landlock_begin(bool untrusted, struct landlock *out)
{
    int abi = landlock_abi();
    struct attributes attributes = { .fs = known(WRITING | (untrusted ? READING : 0), abi) };
    size_t size = sizeof attributes.fs;
    if (untrusted && abi >= 4) {
        attributes.net = NET_BIND_TCP | NET_CONNECT_TCP;
        size = offsetof(struct attributes, scoped);
    }
    if (untrusted && abi >= 6) {
        attributes.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        size = sizeof attributes;
    }
    out->handled = attributes.fs;
    out->rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
    return out->rules < 0 ? -1 : 0;
}

static uint64_t access_of(int what, bool folder)
{
    uint64_t access = 0;
    if (what & LANDLOCK_READ)
        access |= LANDLOCK_ACCESS_FS_READ_FILE | ACCESS_IOCTL_DEV | (folder ? LANDLOCK_ACCESS_FS_READ_DIR : 0);
    if (what & (LANDLOCK_WRITE | LANDLOCK_MAKE))
        access |= LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE | ACCESS_IOCTL_DEV;
    if ((what & LANDLOCK_MAKE) && folder)
        access |= MAKING | LANDLOCK_ACCESS_FS_READ_DIR; /* which bringing a new name to the disk needs */
    return access;
}

static int add_rule(const struct landlock *landlock, int fd, int what)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -1;
    struct landlock_path_beneath_attr rule = {
        .allowed_access = access_of(what, S_ISDIR(st.st_mode)) & landlock->handled,
        .parent_fd = fd,
    };
    if (rule.allowed_access == 0 ||
        syscall(SYS_landlock_add_rule, landlock->rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0)
        return 0;
    return errno == EBADFD ? 0 : -1; /* a pipe, as /dev/stdout may be: Landlock knows only file systems */
}

int landlock_allow(const struct landlock *landlock, const char *path, int what)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return 0; /* opening it in earnest will fail too, and tell */
    int result = add_rule(landlock, fd, what);
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}

int landlock_enter(struct landlock *landlock)
{
    int result = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (result == 0)
        result = (int)syscall(SYS_landlock_restrict_self, landlock->rules, 0);
    int saved = errno;
    close(landlock->rules);
    errno = saved;
    return result;
}
