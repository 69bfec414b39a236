#include "signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A handler reaches nothing but file scope, and runs in any thread, while others look. */
static struct imgtk_cancel stop;
static atomic_bool progress_wanted;
static atomic_bool catching; /* the command looks at `stop` */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "a signal handler may take no lock");

static void on_stop(int number)
{
    imgtk_cancel_request(&stop, number);
}

static void on_progress(int number)
{
    (void)number;
    atomic_store(&progress_wanted, true);
}

static void catch_signal(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_flags = flags };
    struct sigaction old;
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    /* What the parent chose to ignore (nohup, a background job) stays ignored. */
    if (sigaction(number, NULL, &old) == 0 && (old.sa_handler != SIG_IGN || number == SIGUSR1 || number == SIGALRM))
        sigaction(number, &action, NULL);
}

void signals_catch(void)
{
    atomic_store(&catching, true);
    catch_signal(SIGINT, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGTERM, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGHUP, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGUSR1, on_progress, SA_RESTART);
    catch_signal(SIGPIPE, SIG_IGN, 0);
}

const struct imgtk_cancel *signals_stop(void)
{
    return &stop;
}

bool signals_take_progress(void)
{
    return atomic_exchange(&progress_wanted, false);
}

/* ---- Time ----------------------------------------------------------------- */

#define LATE_GRACE 2 /* seconds for a job to stop by itself */

static char late_line[160]; /* "program: what" */
static size_t late_prefix;
static int late_code;

static void on_alarm(int number)
{
    if (!atomic_load(&catching) || imgtk_cancel_reason(&stop) != 0) {
        (void)!write(STDERR_FILENO, late_line, strlen(late_line));
        (void)!write(STDERR_FILENO, "\n", 1);
        _exit(late_code);
    }
    imgtk_cancel_request(&stop, number);
    alarm(LATE_GRACE);
}

void signals_limit_time(const char *program, unsigned seconds, int exit_code)
{
    if (seconds == 0)
        return;
    late_prefix = (size_t)snprintf(late_line, sizeof late_line, "%.60s: ", program);
    snprintf(late_line + late_prefix, sizeof late_line - late_prefix, "not ready after %u seconds, the limit of --max-time",
             seconds);
    late_code = exit_code;
    catch_signal(SIGALRM, on_alarm, 0);
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarms, NULL); /* the parent may have blocked it */
    alarm(seconds);
}

const char *signals_lateness(void)
{
    return late_line + late_prefix;
}
