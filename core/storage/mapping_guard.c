#include "storage/mapping_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "imgtk/storage.h"

enum { RANGES = 64 };

/* A handler reaches nothing but file scope, takes no lock, and runs in any thread. */
static struct range {
    atomic_bool taken;
    atomic_uint version; /* odd while start and end change; they do not while anybody looks at the mapping */
    atomic_uintptr_t start, end; /* both 0: nothing */
    atomic_bool lost;
} ranges[RANGES];
static uintptr_t page_size;
_Static_assert(ATOMIC_POINTER_LOCK_FREE == 2, "a signal handler may take no lock");

static bool holds(struct range *range, uintptr_t address)
{
    unsigned version = atomic_load(&range->version);
    uintptr_t start = atomic_load(&range->start), end = atomic_load(&range->end);
    return version % 2 == 0 && address >= start && address < end && atomic_load(&range->version) == version;
}

static void set(struct range *range, uintptr_t start, uintptr_t end)
{
    atomic_fetch_add(&range->version, 1);
    atomic_store(&range->start, start);
    atomic_store(&range->end, end);
    atomic_fetch_add(&range->version, 1);
}

/* What is gone reads as zeroes from here to the end: a file ends only once. */
static bool put_zeroes(struct range *range, char *at)
{
    if (!holds(range, (uintptr_t)at))
        return false;
    char *page = at - (uintptr_t)at % page_size;
    atomic_store(&range->lost, true);
    return mmap(page, atomic_load(&range->end) - (uintptr_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0) == page;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    bool replaced = false;
    (void)context;
    for (int i = 0; info->si_code > 0 && !replaced && i < RANGES; i++) /* else somebody sent it */
        replaced = put_zeroes(&ranges[i], info->si_addr);
    if (!replaced) { /* as it would have gone without us */
        signal(number, SIG_DFL);
        raise(number);
    }
    errno = saved;
}

bool imgtk_allow_mapping(void)
{
    struct sigaction action = { .sa_flags = SA_SIGINFO | SA_RESTART }, old;
    if (sigaction(SIGBUS, NULL, &old) != 0 || (old.sa_flags & SA_SIGINFO) || old.sa_handler != SIG_DFL)
        return mapping_guard_stands();
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    action.sa_sigaction = on_bus_error;
    sigemptyset(&action.sa_mask);
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS); /* a parent may have blocked it: then no handler would be asked */
    if (pthread_sigmask(SIG_UNBLOCK, &bus, NULL) == 0)
        sigaction(SIGBUS, &action, NULL);
    return mapping_guard_stands();
}

bool mapping_guard_stands(void)
{
    struct sigaction now;
    sigset_t blocked;
    return sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error &&
           pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && !sigismember(&blocked, SIGBUS);
}

int mapping_guard_add(const void *start, size_t length)
{
    for (int i = 0; i < RANGES; i++) {
        struct range *range = &ranges[i];
        bool taken = false;
        if (!atomic_compare_exchange_strong(&range->taken, &taken, true))
            continue;
        atomic_store(&range->lost, false);
        set(range, (uintptr_t)start, (uintptr_t)start + length);
        return i;
    }
    return -1;
}

bool mapping_guard_lost(int number)
{
    return atomic_load(&ranges[number].lost);
}

void mapping_guard_remove(int number)
{
    set(&ranges[number], 0, 0);
    atomic_store(&ranges[number].taken, false);
}
