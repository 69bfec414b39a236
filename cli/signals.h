/* Signals as flags that jobs look at. */
#ifndef IMGTK_CLI_SIGNALS_H
#define IMGTK_CLI_SIGNALS_H

#include <stdbool.h>

/*
 * SIGINT, SIGTERM and SIGHUP ask the job to stop, a second one ends the process; SIGUSR1 asks for progress;
 * SIGPIPE becomes an error of write().
 */
void signals_catch(void);
/* The signal that asked to stop, 0: none. Jobs take it as their cancel flag. */
const volatile int *signals_stop(void);
/* Whether progress was asked for since the last call. */
bool signals_take_progress(void);

/*
 * After `seconds` (0: never) signals_stop() tells SIGALRM; a command that has not ended a moment later ends here, with
 * signals_lateness() on stderr and the exit code.
 */
void signals_limit_time(const char *program, unsigned seconds, int exit_code);
const char *signals_lateness(void);

#endif
