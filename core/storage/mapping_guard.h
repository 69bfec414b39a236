/*
 * Mapped files that become shorter, or whose disk fails. Internal to core.
 *
 * Touching what is no longer there is a SIGBUS, which ends a process. Inside of a guarded range, zeroes take the place of
 * what is gone instead, and whoever looked at them asks afterwards whether they were the file's.
 */
#ifndef IMGTK_CORE_STORAGE_MAPPING_GUARD_H
#define IMGTK_CORE_STORAGE_MAPPING_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the handler of imgtk_allow_mapping() is the process's, and reaches this thread. All calls: any thread. */
bool mapping_guard_stands(void);
/* Guards a mapping (start and length are whole pages); the number to ask with, or -1: too many are guarded already. */
int mapping_guard_add(const void *start, size_t length);
/* Whether anything of it had to be replaced. */
bool mapping_guard_lost(int number);
/* Before it is unmapped. */
void mapping_guard_remove(int number);

#endif
