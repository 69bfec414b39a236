/*
 * Conversions that survive an interruption (--resume). Internal to core.
 *
 * The target is written as NAME.imgtk-part. Beside it NAME.imgtk-resume, the journal, lists what is on disk for
 * certain: which source and options it belongs to, and every run that was written, item by item, in the order of the
 * items. A record is appended only after its data were flushed, so every record that is whole is true.
 *
 * Going on means telling the driver of the recorded runs again, by place(): it takes the same places as before, since
 * drivers decide places in the order of items, and no byte of them is read or written.
 */
#ifndef IMGTK_CORE_CONVERT_RESUME_H
#define IMGTK_CORE_CONVERT_RESUME_H

#include "jobs/plan.h"

struct conversion;
struct item;
struct target_request;

enum run_kind { RUN_DROP, RUN_ZERO, RUN_DATA };

struct run {
    enum run_kind kind;
    size_t start, length; /* bytes within the item */
    void *prepared;       /* what the driver has made of it already; NULL: nothing */
};

struct resume;

/*
 * Opens or begins the journal and the unfinished file; *file is the latter. A journal that belongs to another source,
 * or to other options, is IMGTK_ECHANGED.
 */
int resume_open(struct imgtk_context *context, const struct target_request *request, const char *options,
                struct resume **out, struct imgtk_storage **file, struct imgtk_error *err);
/* Tells the driver what is there already, and moves the conversion behind it. Before any worker starts. */
int resume_replay(struct resume *resume, struct conversion *conversion, struct imgtk_error *err);
/* An item is written; its runs may be recorded with the next flush. Thread-safe. */
int resume_record(struct resume *resume, struct conversion *conversion, const struct item *item,
                  const struct run *runs, size_t count, struct imgtk_error *err);
/* The conversion has failed: what was done until then is recorded, as far as it can be. After the last worker ended. */
void resume_keep(struct resume *resume, struct conversion *conversion);
/* Gives the finished file its name and removes the journal. */
int resume_commit(struct resume *resume, struct imgtk_storage *file, bool sync, struct imgtk_error *err);
/* What was written turned out to be wrong: resume_close() keeps nothing of it. */
void resume_discard(struct resume *resume);
/* Keeps both files for the next attempt, unless nothing is recorded in them. NULL is allowed. */
void resume_close(struct resume *resume);

#endif
