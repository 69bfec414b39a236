/* Several threads that do the same work. Internal to core. */
#ifndef IMGTK_CORE_WORKERS_H
#define IMGTK_CORE_WORKERS_H

#define WORKERS_MAX 64u

/*
 * Runs work(context) in `count` threads (at most WORKERS_MAX), the caller's among them, and waits for all. A thread
 * that cannot be had is done without.
 */
void workers_run(unsigned count, void (*work)(void *context), void *context);

#endif
