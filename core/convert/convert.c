#include "convert.h"

#include <stdlib.h>
#include <string.h>

#include "chain/image_internal.h"
#include "context/context.h"
#include "imgtk/bytes.h"
#include "resume.h"
#include "storage/storage.h"

#define ITEM_LOCAL (512u << 10) /* one worker writes what another's cache still holds */
#define ITEM_FAR (1u << 20)     /* fewer requests */
#define ZERO_GRANULE 4096u
#define EXISTING_GRANULE (64u << 10) /* on a target that has to be told of zeroes, shorter runs are cheaper written */

/* ---- Set-up ------------------------------------------------------------- */

static enum copy_mode choose_copy(const struct conversion *conversion)
{
    const struct imgtk_convert *job = conversion->job;
    bool in_order = conversion->in_order || conversion->target.sequential;
    if (in_order || job->target.compress || conversion->base || job->salvaged || job->sparse_size > 0)
        return COPY_BY_HAND;
    bool fixed_places = (conversion->target.driver->flags & IMGTK_DRIVER_FIXED_PLACES) != 0;
    bool shares = conversion->target.shares_blocks && conversion->target.unit % STORAGE_SHARED_UNIT == 0;
    return fixed_places || shares ? COPY_SHARE : COPY_BY_HAND;
}

static uint32_t choose_item_size(const struct conversion *conversion)
{
    uint32_t size = conversion->target.far ? ITEM_FAR : ITEM_LOCAL;
    return conversion->target.unit > size ? conversion->target.unit : size;
}

static void choose_sizes(struct conversion *conversion)
{
    const struct imgtk_convert *job = conversion->job;
    uint32_t unit = conversion->target.unit;
    uint64_t granule = job->sparse_size > 0 ? (uint64_t)job->sparse_size : ZERO_GRANULE;
    if (!conversion->target.reads_zero && granule < EXISTING_GRANULE)
        granule = EXISTING_GRANULE;
    /* A journal must name the very units that the driver keeps, since it is not shown their zeroes again. */
    if (conversion->target.resume && !(conversion->target.driver->flags & IMGTK_DRIVER_FIXED_PLACES))
        granule = unit;
    granule = imgtk_round_down(granule, unit);
    conversion->cut = conversion->digest.tree && unit < DIGEST_BLOCK ? DIGEST_BLOCK : unit;
    conversion->item_size = choose_item_size(conversion);
    conversion->granule = (uint32_t)imgtk_min_u64(granule > unit ? granule : unit, conversion->item_size);
    conversion->in_order = source_in_order(&conversion->source);
    conversion->find_zeroes = job->sparse_size != 0 && !job->relative_to;
    conversion->copy = choose_copy(conversion);
    conversion->copy_unit = storage_is_on_server(conversion->target.file) ? 1 : STORAGE_SHARED_UNIT;
}

static void note_ways(const struct conversion *conversion)
{
    context_note(conversion->context, "convert: %u thread%s, pieces of %u KiB", conversion->workers,
                 conversion->workers == 1 ? "" : "s", conversion->item_size / 1024);
    context_note(conversion->context, conversion->copy == COPY_SHARE
                 ? "copy: by the kernel, as far as the file systems can share blocks" : "copy: by read and write");
}

static int check_job(const struct imgtk_convert *job, struct imgtk_error *err)
{
    if (job->relative_to && (job->digest || job->verify))
        return imgtk_fail(err, IMGTK_EINVAL, "a checksum and --verify are of the whole disk: they cannot be combined "
                          "with --relative-to");
    if (job->relative_to && (job->backing || job->target.compress || job->target.resume))
        return imgtk_fail(err, IMGTK_EINVAL, "--relative-to cannot be combined with a backing file, -c or --resume");
    return 0;
}

static int set_up(struct conversion *conversion, struct imgtk_error *err)
{
    const struct imgtk_convert *job = conversion->job;
    int status = check_job(job, err);
    if (status)
        return status;
    conversion->base = job->backing ? job->backing : job->relative_to;
    struct plan_options options = { .write_all = job->sparse_size == 0, .ignore_extents = job->no_extents,
                                    .backing = conversion->base, .salvage = job->salvaged != NULL,
                                    .zeroes_as_data = job->relative_to != NULL };
    status = source_init(&conversion->source, job->sources, job->source_count, err);
    if (!status)
        status = plan_init(&conversion->plan, &conversion->source, &options, err);
    if (!status)
        status = convert_digest_begin(conversion, err);
    if (status)
        return status;
    struct target_request request = {
        .wish = &job->target,
        .size = conversion->source.size,
        .plan = &conversion->plan,
        .backing = job->backing,
        .base = conversion->base,
        .sources = job->sources,
        .source_count = job->source_count,
        .workers = job->workers,
        .write_all = job->sparse_size == 0 || job->relative_to,
        .sparse_size = job->sparse_size,
        .read_back = job->verify,
    };
    status = target_create(conversion->context, &request, &conversion->target, err);
    if (status)
        return status;
    conversion->workers = conversion->target.workers;
    conversion->progress = (struct imgtk_progress){ .phase = "copy",
                                                    .total = conversion->source.size * (job->verify ? 2 : 1) };
    choose_sizes(conversion);
    note_ways(conversion);
    if (!conversion->target.resume)
        return 0;
    status = resume_replay(conversion->target.resume, conversion, err);
    return status ? status : convert_digest_resume(conversion, err);
}

/* ---- Progress ----------------------------------------------------------- */

static int tell_progress(struct conversion *conversion, struct imgtk_error *err)
{
    const struct imgtk_convert *job = conversion->job;
    if (job->progress && job->progress(job->progress_context, &conversion->progress))
        return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    return 0;
}

int convert_advance(struct conversion *conversion, uint64_t done, uint64_t copied, struct imgtk_error *err)
{
    pthread_mutex_lock(&conversion->lock);
    conversion->progress.done += done;
    conversion->progress.copied += copied;
    int status = tell_progress(conversion, err);
    pthread_mutex_unlock(&conversion->lock);
    return status;
}

/* ---- The run ------------------------------------------------------------ */

static void work(void *context)
{
    convert_work(context);
}

static int commit(struct conversion *conversion, struct imgtk_error *err)
{
    const struct imgtk_convert *job = conversion->job;
    struct imgtk_digest_value digest = { .length = 0 };
    conversion->progress.phase = job->target.no_sync ? "finish" : "sync";
    int status = tell_progress(conversion, err);
    if (!status)
        status = target_finish(&conversion->target, err);
    if (!status)
        status = convert_digest_end(conversion, &digest, err);
    if (!status && job->verify)
        status = convert_verify(conversion, &digest, err);
    if (!status)
        status = target_commit(&conversion->target, err);
    if (!status && job->digest)
        *job->digest = digest;
    return status;
}

/*
 * At data where their files are mapped, in which others may change them at any time. One writer: nothing is compressed.
 * What is hashed, or compared with the backing file, and written later, must be the same both times.
 */
static bool may_look(const struct conversion *conversion)
{
    const struct target *target = &conversion->target;
    return target->one_writer && (target->driver->flags & IMGTK_DRIVER_BYTES_MAY_CHANGE) && !conversion->digest.tree &&
           !conversion->base && !conversion->job->salvaged;
}

static int run(struct conversion *conversion, struct imgtk_error *err)
{
    int status = set_up(conversion, err);
    if (status)
        return status;
    views_init(&conversion->views, may_look(conversion));
    status = slots_init(&conversion->slots, conversion, err);
    if (!status)
        imgtk_workers_run(conversion->workers, work, conversion);
    slots_destroy(&conversion->slots);
    views_destroy(&conversion->views);
    if (status)
        return status;
    if (conversion->error.status) {
        if (conversion->target.resume)
            resume_keep(conversion->target.resume, conversion);
        *err = conversion->error;
        return conversion->error.status;
    }
    return commit(conversion, err);
}

int imgtk_convert(struct imgtk_context *context, const struct imgtk_convert *job, struct imgtk_error *err)
{
    struct conversion *conversion = calloc(1, sizeof(*conversion));
    struct imgtk_error local = IMGTK_ERROR_INIT;
    if (!conversion)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    conversion->context = context;
    conversion->job = job;
    pthread_mutex_init(&conversion->lock, NULL);
    turnstile_init(&conversion->stile);
    rate_init(&conversion->rate, job->rate_limit);
    int status = run(conversion, &local);
    target_close(&conversion->target);
    digest_tree_free(conversion->digest.tree);
    if (conversion->plan.source)
        plan_destroy(&conversion->plan);
    rate_destroy(&conversion->rate);
    turnstile_destroy(&conversion->stile);
    pthread_mutex_destroy(&conversion->lock);
    free(conversion);
    if (err)
        *err = local;
    return status;
}

int imgtk_create_image(struct imgtk_context *context, const struct imgtk_target *target, uint64_t size,
                       struct imgtk_image *backing, struct imgtk_error *err)
{
    struct target_request request = { .wish = target, .size = size, .backing = backing, .base = backing, .workers = 1 };
    struct target made;
    int status = target_create(context, &request, &made, err);
    if (!status)
        status = target_finish(&made, err);
    if (!status)
        status = target_commit(&made, err);
    target_close(&made);
    return status;
}
