#include "leaks.h"

#include <inttypes.h>
#include <stdio.h>

void leaks_report(struct imgtk_check *check, struct imgtk_storage *file, const char *what, uint64_t count)
{
    char line[128];
    if (count == 0 || (imgtk_storage_flags(file) & IMGTK_STORAGE_FIXED_SIZE))
        return;
    check->leaks += count;
    snprintf(line, sizeof(line), "leaked %s, which are in the file and in no table: %" PRIu64, what, count);
    check->report(check->context, line);
}
