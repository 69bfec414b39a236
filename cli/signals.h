/* Signals as flags that jobs look at. */
#ifndef IMGTK_CLI_SIGNALS_H
#define IMGTK_CLI_SIGNALS_H

#include <imgtk/cancel.h>
#include <stdbool.h>

/*
 * For a command whose job looks at signals_stop(): SIGINT, SIGTERM and SIGHUP ask it to stop, a second one ends the
 * process; SIGUSR1 asks for progress; SIGPIPE becomes an error of write().
 */
void signals_catch(void);
/* What jobs take; its reason is the number of the signal that asked to stop. */
const struct imgtk_cancel *signals_stop(void);
/* Whether progress was asked for since the last call. */
bool signals_take_progress(void);

/*
 * After `seconds` (0: never) the reason of signals_stop() is SIGALRM; a command that has not ended two seconds later ends
 * here, with signals_lateness() on stderr and the exit code. One that has not called signals_catch() ends here at once, as
 * it does when it is interrupted.
 */
void signals_limit_time(const char *program, unsigned seconds, int exit_code);
const char *signals_lateness(void);

#endif
