/* A filter of system calls: what reading and writing files that are named already takes, and nothing else. */
#ifndef IMGTK_CLI_SECCOMP_H
#define IMGTK_CLI_SECCOMP_H

/*
 * For all threads, those to come included; they cannot end it. A call that the filter does not have ends the process
 * with one line and `exit_code`. -1: the kernel, or this build, has no filters.
 */
int seccomp_enter(const char *program, int exit_code);

#endif
