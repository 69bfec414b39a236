#include "resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chain/image_internal.h"
#include "context/context.h"
#include "convert.h"
#include "imgtk/bytes.h"
#include "resume_journal.h"
#include "storage/storage.h"

/* Flushes are made as often as they cost a twentieth of the time, so an interruption loses little on any disk. */
#define FLUSH_SHARE 20u
#define FLUSH_MIN_NS 10000000u

/* A finished item whose predecessors are not all finished. */
struct waiting {
    struct waiting *next;
    uint64_t number, end;
    size_t count;
    struct journal_record records[];
};

struct resume {
    struct journal *journal;
    char *name, *part;
    bool committed, discarded;
    pthread_mutex_t lock; /* of what follows; held while a flush waits for the disk */
    struct waiting *waiting; /* in the order of their numbers */
    uint64_t next_number;
    uint64_t flushed_ns, flush_took_ns; /* when the last flush ended; how long it took */
    bool lost; /* a flush failed: the next one could succeed without what that one has lost */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Which job it is ---------------------------------------------------- */

static int hash_layer(const struct imgtk_layer *layer, uint64_t *hash, struct imgtk_error *err)
{
    struct stat st;
    uint64_t size = 0;
    int fd = layer->file->ops.fd(layer->file->handle);
    int status = imgtk_storage_size(layer->file, &size, err);
    if (status)
        return status;
    *hash = journal_hash(*hash, layer->name, strlen(layer->name) + 1);
    *hash = journal_hash(*hash, layer->driver->name, strlen(layer->driver->name) + 1);
    *hash = journal_hash_number(*hash, size);
    const char *version = layer->file->ops.version_of(layer->file->handle);
    if (version)
        *hash = journal_hash(*hash, version, strlen(version) + 1);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        *hash = journal_hash_number(*hash, (uint64_t)st.st_ino);
        *hash = journal_hash_number(*hash, (uint64_t)st.st_mtim.tv_sec);
        *hash = journal_hash_number(*hash, (uint64_t)st.st_mtim.tv_nsec);
    }
    return 0;
}

static int hash_plan(struct imgtk_plan *plan, uint64_t *hash, struct imgtk_error *err)
{
    for (uint64_t offset = 0; offset < plan->source->size;) {
        struct plan_stretch stretch;
        int status = plan_stretch(plan, offset, &stretch, err);
        if (status)
            return status;
        *hash = journal_hash_number(*hash, stretch.length);
        *hash = journal_hash_number(*hash, (uint64_t)stretch.kind);
        bool plain = stretch.found.extent.flags & IMGTK_EXTENT_PLAIN;
        *hash = journal_hash_number(*hash, plain ? stretch.found.extent.host_offset : 0);
        offset += stretch.length;
    }
    return 0;
}

/* Size, time and metadata of every layer of every source, and everything that shapes the target. */
static int job_identity(const struct target_request *request, const char *options, uint64_t *hash,
                        struct imgtk_error *err)
{
    int status = 0;
    *hash = journal_hash(JOURNAL_HASH_START, options, strlen(options) + 1);
    *hash = journal_hash_number(*hash, request->size);
    for (size_t i = 0; !status && i < request->source_count; i++)
        for (size_t depth = 0; !status && depth < request->sources[i]->count; depth++)
            status = hash_layer(&request->sources[i]->layers[depth].public, hash, err);
    if (!status && request->backing)
        status = hash_layer(&request->backing->layers[0].public, hash, err);
    return status ? status : hash_plan(request->plan, hash, err);
}

/* ---- Opening ------------------------------------------------------------ */

/* Who was killed between the last two steps leaves the journal of a file that has got its name. */
static int look_for_part(const struct resume *resume, bool *fresh, struct imgtk_error *err)
{
    if (*fresh || access(resume->part, F_OK) == 0 || errno != ENOENT)
        return 0;
    *fresh = true;
    return journal_begin_anew(resume->journal, err);
}

static int open_part(struct resume *resume, const struct stat *old, bool fresh, struct imgtk_storage **file,
                     struct imgtk_error *err)
{
    int fd = open(resume->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_TRUNC : 0),
                  file_first_permissions(old));
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "Could not open '%s'", resume->part);
    int status = old->st_mode ? file_take_over_mode(fd, old, err) : 0;
    if (status) {
        close(fd);
        return status;
    }
    status = storage_from_fd(fd, resume->part, IMGTK_STORAGE_WRITABLE, file, err);
    if (status)
        return status;
    /* What is not recorded will be written again with the same bytes, so for drivers the rest is as good as new. */
    (*file)->flags |= IMGTK_STORAGE_READS_ZERO;
    return 0;
}

static char *with_suffix(const char *name, const char *suffix)
{
    size_t length = strlen(name) + strlen(suffix) + 1;
    char *joined = malloc(length);
    if (joined)
        snprintf(joined, length, "%s%s", name, suffix);
    return joined;
}

int resume_open(struct imgtk_context *context, const struct target_request *request, const char *options,
                struct resume **out, struct imgtk_storage **file, struct imgtk_error *err)
{
    uint64_t identity;
    bool fresh = true;
    char place[PATH_MAX];
    struct stat old;
    struct storage_name parsed;
    int status = storage_name_parse(context, request->wish->name, &parsed, err);
    if (!status)
        status = file_place(parsed.path, place, &old, err);
    if (!status)
        status = job_identity(request, options, &identity, err);
    if (status)
        return status;
    struct resume *resume = calloc(1, sizeof(*resume));
    char *path = with_suffix(place, ".imgtk-resume");
    if (!resume || !path)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    if (!status) {
        pthread_mutex_init(&resume->lock, NULL);
        resume->flushed_ns = now_ns();
        resume->name = strdup(place);
        resume->part = with_suffix(place, ".imgtk-part");
        if (!resume->name || !resume->part)
            status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    if (!status)
        status = journal_open(path, identity, &resume->journal, &fresh, err);
    if (!status)
        status = look_for_part(resume, &fresh, err);
    if (!status)
        status = open_part(resume, &old, fresh, file, err);
    free(path);
    if (status) {
        resume_close(resume);
        return status;
    }
    context_note(context, "resume: %s", fresh ? "from the beginning" : "going on with what was begun");
    *out = resume;
    return 0;
}

/* ---- Going on ----------------------------------------------------------- */

static int replay_run(struct conversion *conversion, const struct journal_record *record, struct imgtk_error *err)
{
    struct target *target = &conversion->target;
    struct imgtk_turn turn = { .stile = &conversion->stile, .item = conversion->next_number, .last = false };
    if (!imgtk_range_fits(record->offset, record->length, conversion->source.size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the journal of the conversion names a range outside the disk");
    if (record->kind == JOURNAL_ZERO)
        return target->driver->zero(target->writer, record->offset, record->length, &turn, err);
    int status = 0;
    uint64_t end = record->offset + record->length;
    /* Unit by unit: what a driver puts between its units must come to lie where write() had put it. */
    for (uint64_t at = record->offset; !status && at < end; at += target->unit) {
        struct imgtk_write write = { .length = (size_t)imgtk_min_u64(target->unit, end - at), .offset = at, .turn = &turn };
        struct imgtk_storage *file;
        uint64_t host_offset;
        status = target->driver->place(target->writer, &write, &file, &host_offset, err);
    }
    return status;
}

static int replay_item(struct conversion *conversion, const struct journal_record *record, struct imgtk_error *err)
{
    struct imgtk_turn turn = { .stile = &conversion->stile, .item = conversion->next_number++, .last = true };
    if (!imgtk_range_fits(record->offset, record->length, conversion->source.size))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the journal of the conversion names a range outside the disk");
    turn_settle(&turn);
    conversion->position = record->offset + record->length;
    conversion->progress.done = conversion->position;
    return 0;
}

int resume_replay(struct resume *resume, struct conversion *conversion, struct imgtk_error *err)
{
    struct journal_record record;
    bool found;
    int status = journal_next(resume->journal, &record, &found, err);
    while (!status && found) {
        status = record.kind == JOURNAL_ITEM ? replay_item(conversion, &record, err)
                                             : replay_run(conversion, &record, err);
        if (!status)
            status = journal_next(resume->journal, &record, &found, err);
    }
    resume->next_number = conversion->next_number;
    return status;
}

/* ---- Recording ---------------------------------------------------------- */

static struct waiting *make_waiting(const struct item *item, const struct run *runs, size_t count)
{
    struct waiting *done = malloc(sizeof(*done) + (count + 1) * sizeof(done->records[0]));
    if (!done)
        return NULL;
    *done = (struct waiting){ .number = item->number, .count = count + 1 };
    for (size_t i = 0; i < count; i++)
        done->records[i] = (struct journal_record){ runs[i].kind == RUN_ZERO ? JOURNAL_ZERO : JOURNAL_DATA,
                                                    item->offset + runs[i].start, runs[i].length };
    done->records[count] = (struct journal_record){ JOURNAL_ITEM, item->offset, item->length };
    return done;
}

static void insert(struct resume *resume, struct waiting *done)
{
    struct waiting **at = &resume->waiting;
    while (*at && (*at)->number < done->number)
        at = &(*at)->next;
    done->next = *at;
    *at = done;
}

/* Items whose predecessors are all recorded go to the journal's memory. */
static int append_ready(struct resume *resume, struct imgtk_error *err)
{
    int status = 0;
    while (!status && resume->waiting && resume->waiting->number == resume->next_number) {
        struct waiting *ready = resume->waiting;
        for (size_t i = 0; !status && i < ready->count; i++)
            status = journal_append(resume->journal, &ready->records[i], err);
        resume->waiting = ready->next;
        resume->next_number++;
        free(ready);
    }
    return status;
}

static bool is_due(const struct resume *resume)
{
    uint64_t wait = FLUSH_SHARE * resume->flush_took_ns;
    return now_ns() - resume->flushed_ns >= (wait > FLUSH_MIN_NS ? wait : FLUSH_MIN_NS);
}

/* Everything in the journal's memory was written before; after the flush it is on disk, and may be recorded. */
static int flush(struct resume *resume, struct imgtk_storage *file, struct imgtk_error *err)
{
    uint64_t began = now_ns();
    int status = imgtk_storage_flush(file, err);
    resume->lost = resume->lost || status;
    if (!status)
        status = journal_write(resume->journal, err);
    resume->flushed_ns = now_ns();
    resume->flush_took_ns = resume->flushed_ns - began;
    return status;
}

int resume_record(struct resume *resume, struct conversion *conversion, const struct item *item,
                  const struct run *runs, size_t count, struct imgtk_error *err)
{
    struct waiting *done = make_waiting(item, runs, count);
    if (!done)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    pthread_mutex_lock(&resume->lock);
    insert(resume, done);
    int status = append_ready(resume, err);
    if (!status && is_due(resume))
        status = flush(resume, conversion->target.file, err);
    pthread_mutex_unlock(&resume->lock);
    return status;
}

void resume_keep(struct resume *resume, struct conversion *conversion)
{
    pthread_mutex_lock(&resume->lock);
    if (!resume->lost)
        flush(resume, conversion->target.file, NULL);
    pthread_mutex_unlock(&resume->lock);
}

/* ---- Ending ------------------------------------------------------------- */

static int sync_folder(const char *path, struct imgtk_error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int status = 0;
    if (fd < 0 || fsync(fd) != 0)
        status = imgtk_fail_errno(err, folder ? errno : ENOMEM, "cannot bring the folder of '%s' to the disk", path);
    if (fd >= 0)
        close(fd);
    free(folder);
    return status;
}

int resume_commit(struct resume *resume, struct imgtk_storage *file, bool sync, struct imgtk_error *err)
{
    int status = sync ? imgtk_storage_flush(file, err) : 0;
    if (!status && rename(resume->part, resume->name) != 0)
        status = imgtk_fail_errno(err, errno, "cannot give '%s' its name", resume->part);
    if (!status)
        status = journal_remove(resume->journal, err);
    resume->committed = !status;
    if (!status && sync)
        status = sync_folder(resume->name, err);
    return status;
}

void resume_discard(struct resume *resume)
{
    resume->discarded = true;
}

void resume_close(struct resume *resume)
{
    if (!resume)
        return;
    while (resume->waiting) {
        struct waiting *next = resume->waiting->next;
        free(resume->waiting);
        resume->waiting = next;
    }
    if (resume->journal && !resume->committed && (resume->discarded || journal_is_empty(resume->journal))) {
        journal_remove(resume->journal, NULL);
        unlink(resume->part);
    }
    journal_close(resume->journal);
    pthread_mutex_destroy(&resume->lock);
    free(resume->name);
    free(resume->part);
    free(resume);
}
