#include "signals.h"

#include <signal.h>
#include <stddef.h>

/* A handler reaches nothing but file scope. */
static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t progress_wanted;

static void on_stop(int number)
{
    stop_signal = number;
}

static void on_progress(int number)
{
    (void)number;
    progress_wanted = 1;
}

static void catch_signal(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_flags = flags };
    struct sigaction old;
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    /* What the parent chose to ignore (nohup, a background job) stays ignored. */
    if (sigaction(number, NULL, &old) == 0 && (old.sa_handler != SIG_IGN || number == SIGUSR1))
        sigaction(number, &action, NULL);
}

void signals_catch(void)
{
    catch_signal(SIGINT, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGTERM, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGHUP, on_stop, (int)SA_RESETHAND);
    catch_signal(SIGUSR1, on_progress, SA_RESTART);
    catch_signal(SIGPIPE, SIG_IGN, 0);
}

const volatile int *signals_stop(void)
{
    return &stop_signal;
}

bool signals_take_progress(void)
{
    bool wanted = progress_wanted != 0;
    progress_wanted = 0;
    return wanted;
}
