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

bool leaks_can_cut(struct imgtk_check *check, const struct imgtk_storage *file, const struct leaks_tail *tail)
{
    char line[160];
    if (!(check->repair & IMGTK_REPAIR_LEAKS) || tail->count == 0 ||
        (imgtk_storage_flags(file) & IMGTK_STORAGE_FIXED_SIZE))
        return false;
    if (!tail->unsafe)
        return true;
    snprintf(line, sizeof(line), "what is leaked at the end of the file stays there: %s", tail->unsafe);
    check->report(check->context, line);
    return false;
}

int leaks_cut(struct imgtk_check *check, struct imgtk_storage *file, const struct leaks_tail *tail,
              struct imgtk_error *err)
{
    int status = imgtk_storage_truncate(file, tail->end, err);
    if (!status)
        status = imgtk_storage_flush(file, err);
    if (status)
        return status;
    check->leaks -= tail->count;
    check->leaks_fixed += tail->count;
    return 0;
}
