#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#elif defined(__s390x__)
#define MACHINE AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define MACHINE AUDIT_ARCH_PPC64LE
#elif defined(__riscv) && __riscv_xlen == 64
#define MACHINE AUDIT_ARCH_RISCV64
#endif

/* The sanitizers make calls of their own, up to tracing the process when it ends. */
#if !defined(MACHINE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int seccomp_enter(const char *program, int exit_code)
{
    (void)program, (void)exit_code;
    errno = ENOSYS;
    return -1;
}

#else

/* ---- What is allowed ------------------------------------------------------ */

static const int allowed[] = {
    /* Files: which of them may be opened, is Landlock's business. */
    SYS_read, SYS_write, SYS_pread64, SYS_preadv2, SYS_pwrite64, SYS_readv, SYS_writev, SYS_lseek, SYS_openat, SYS_close,
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_readlinkat, SYS_faccessat, SYS_faccessat2, SYS_fcntl, SYS_getcwd,
    SYS_fsync, SYS_fdatasync, SYS_syncfs, SYS_sync_file_range, SYS_ftruncate, SYS_fallocate, SYS_fadvise64,
    SYS_copy_file_range, SYS_linkat, SYS_unlinkat, SYS_renameat2, SYS_fchmod, SYS_fchown, SYS_ppoll, SYS_umask,
    /* Memory */
    SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise,
    /* Threads, time and signals */
    SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_sched_getaffinity, SYS_sched_yield, SYS_gettid, SYS_getpid,
    SYS_exit, SYS_exit_group, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall,
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_setitimer,
    SYS_getrandom, SYS_sysinfo, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    /* What some machines have besides */
#ifdef SYS_open
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_unlink, SYS_rename, SYS_poll, SYS_alarm,
#endif
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_time
    SYS_time,
#endif
};

/* Not those by which a terminal can be made to type. */
static const unsigned allowed_ioctls[] = { FICLONERANGE, BLKGETSIZE64, BLKZEROOUT, TIOCGWINSZ, TCGETS };

/* ---- The filter ----------------------------------------------------------- */

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_CODE 256
_Static_assert(2 * (LENGTH(allowed) + LENGTH(allowed_ioctls)) + 40 <= MAX_CODE, "there is room for the other rules too");

struct filter {
    struct sock_filter code[MAX_CODE];
    unsigned short length;
};

static void put(struct filter *filter, unsigned short code, uint32_t value, uint8_t if_true, uint8_t if_false)
{
    filter->code[filter->length++] = (struct sock_filter){ .code = code, .jt = if_true, .jf = if_false, .k = value };
}

static void load(struct filter *filter, size_t offset)
{
    put(filter, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* The lower half, which all that is looked at fits into. */
static void load_argument(struct filter *filter, unsigned number)
{
    size_t half = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0;
    load(filter, offsetof(struct seccomp_data, args) + 8 * number + half);
}

static void answer(struct filter *filter, uint32_t action)
{
    put(filter, BPF_RET | BPF_K, action, 0, 0);
}

static void answer_if(struct filter *filter, uint32_t value, uint32_t action)
{
    put(filter, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    answer(filter, action);
}

/* A call whose argument must have one of these bits, or none. */
static void judge_bits(struct filter *filter, int call, unsigned argument, uint32_t bits, bool wanted)
{
    put(filter, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 4);
    load_argument(filter, argument);
    put(filter, BPF_JMP | BPF_JSET | BPF_K, bits, wanted ? 0 : 1, wanted ? 1 : 0);
    answer(filter, SECCOMP_RET_ALLOW);
    answer(filter, SECCOMP_RET_TRAP);
}

/* What else a descriptor is asked is as if it were not known. */
static void judge_ioctl(struct filter *filter)
{
    put(filter, BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, (uint8_t)(2 * LENGTH(allowed_ioctls) + 2));
    load_argument(filter, 1);
    for (size_t i = 0; i < LENGTH(allowed_ioctls); i++)
        answer_if(filter, allowed_ioctls[i], SECCOMP_RET_ALLOW);
    answer(filter, SECCOMP_RET_ERRNO | ENOTTY);
}

/* abort() */
static void judge_tgkill(struct filter *filter)
{
    put(filter, BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 0, 4);
    load_argument(filter, 0);
    answer_if(filter, (uint32_t)getpid(), SECCOMP_RET_ALLOW);
    answer(filter, SECCOMP_RET_TRAP);
}

static void build(struct filter *filter)
{
    static const unsigned clone_flags = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 1 : 0; /* which argument: s390x */
    load(filter, offsetof(struct seccomp_data, arch));
    put(filter, BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    answer(filter, SECCOMP_RET_KILL_PROCESS);
    load(filter, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < LENGTH(allowed); i++)
        answer_if(filter, (uint32_t)allowed[i], SECCOMP_RET_ALLOW);
    judge_bits(filter, SYS_mmap, 2, PROT_EXEC, false);
    judge_bits(filter, SYS_mprotect, 2, PROT_EXEC, false);
    judge_bits(filter, SYS_clone, clone_flags, CLONE_THREAD, true);
    answer_if(filter, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS); /* its flags are out of reach; libc then takes clone */
    judge_ioctl(filter);
    judge_tgkill(filter);
    answer(filter, SECCOMP_RET_TRAP);
}

/* ---- Breaking it ---------------------------------------------------------- */

/* A handler reaches nothing but file scope. */
static char message[160];
static int trap_code;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    char line[sizeof message + 16];
    size_t length = strlen(message);
    char digits[12], *at = digits + sizeof digits;
    unsigned call = (unsigned)info->si_syscall;
    *--at = '\n';
    do
        *--at = (char)('0' + call % 10);
    while (call /= 10);
    memcpy(line, message, length);
    memcpy(line + length, at, (size_t)(digits + sizeof digits - at));
    ssize_t ignored = write(STDERR_FILENO, line, length + (size_t)(digits + sizeof digits - at));
    (void)ignored;
    _exit(trap_code);
}

int seccomp_enter(const char *program, int exit_code)
{
    struct sigaction action = { .sa_flags = SA_SIGINFO };
    struct filter filter = { .length = 0 };
    snprintf(message, sizeof message, "%.60s: stopped at a system call that --untrusted does not allow: number ", program);
    trap_code = exit_code;
    action.sa_sigaction = on_trap;
    build(&filter);
    struct sock_fprog program_code = { .len = filter.length, .filter = filter.code };
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program_code);
}

#endif
