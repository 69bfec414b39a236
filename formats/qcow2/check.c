/* The check of an image: its steps, and the comparison of refcounts with references. */
#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void report_list(struct qcow2_check_state *state, const char *format, va_list list) IMGTK_PRINTF(2, 0);

static void report_list(struct qcow2_check_state *state, const char *format, va_list list)
{
    char message[IMGTK_MESSAGE_SIZE];
    vsnprintf(message, sizeof(message), format, list);
    for (char *at = message; *at; at++) /* names in it are the image's */
        if ((unsigned char)*at < 0x20)
            *at = '?';
    state->result->report(state->result->context, message);
}

void qcow2_check_report(struct qcow2_check_state *state, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report_list(state, format, list);
    va_end(list);
}

void qcow2_check_corruption(struct qcow2_check_state *state, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report_list(state, format, list);
    va_end(list);
    state->result->corruptions++;
}

/* ---- Comparing -------------------------------------------------------------- */

static uint64_t stored_refcount(const struct qcow2_check_state *state, const uint8_t *block, uint64_t at)
{
    return block ? qcow2_refcount_get(block, at, state->image->geometry.refcount_order) : 0;
}

/* Reads the block of that index into the table; *block: NULL where there is none, and all its counts are zero. */
static int read_block(const struct qcow2_check_state *state, uint64_t index, uint8_t *table, const uint8_t **block,
                      struct imgtk_error *err)
{
    uint64_t offset = index < state->refcount_blocks ? state->refcount_table[index] : 0;
    *block = offset != 0 ? table : NULL;
    if (offset == 0)
        return 0;
    return imgtk_storage_pread(state->image->file, table, (size_t)state->image->geometry.cluster_size, offset, err);
}

static int compare_block(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context,
                         uint64_t index, bool *tell, struct imgtk_error *err)
{
    const uint8_t *block;
    uint64_t first, end;
    (void)context;
    qcow2_refcount_span(state, index, &first, &end);
    int status = read_block(state, index, worker->table, &block, err);
    if (!block && qcow2_tally_is_blank(&state->tally, first, end))
        return status;
    for (uint64_t cluster = first; cluster < end && status == 0; cluster++) {
        uint32_t entry = qcow2_tally_entry(&state->tally, cluster), references = entry >> QCOW2_TALLY_USE_BITS;
        uint64_t refcount = stored_refcount(state, block, cluster - first);
        if ((refcount | references) == 0)
            continue;
        worker->end_cluster = cluster + 1 > worker->end_cluster ? cluster + 1 : worker->end_cluster;
        *tell |= refcount != references || (entry & QCOW2_TALLY_USE_MASK) == QCOW2_USE_CLASH;
        /* A count that has no place needs new blocks. */
        worker->rebuild |= !block && references > 0;
    }
    return status;
}

static void report_cluster(struct qcow2_check_state *state, uint64_t cluster, uint64_t refcount)
{
    uint64_t references = qcow2_tally_count(&state->tally, cluster);
    bool clash = qcow2_tally_use(&state->tally, cluster) == QCOW2_USE_CLASH;
    if (refcount > references) {
        qcow2_check_report(state, "Leaked cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster,
                           refcount, references);
        state->result->leaks++;
    }
    if (refcount < references) {
        qcow2_check_corruption(state, "ERROR cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster,
                               refcount, references);
        state->too_low += !clash; /* what no count can repair is not among them */
        state->too_high_to_count += !clash && references > qcow2_refcount_max(state->image->geometry.refcount_order);
    } else if (clash) {
        qcow2_check_corruption(state, "ERROR cluster %" PRIu64 " is used for things that exclude each other", cluster);
    }
}

static int report_block(struct qcow2_check_state *state, void *context, uint64_t index, struct imgtk_error *err)
{
    const uint8_t *block;
    uint64_t first, end;
    (void)context;
    qcow2_refcount_span(state, index, &first, &end);
    int status = read_block(state, index, state->own.table, &block, err);
    for (uint64_t cluster = first; cluster < end && status == 0; cluster++)
        report_cluster(state, cluster, stored_refcount(state, block, cluster - first));
    return status;
}

static int compare(struct qcow2_check_state *state, struct imgtk_error *err)
{
    uint64_t blocks = imgtk_div_round_up(state->clusters, UINT64_C(1) << state->image->geometry.refcount_block_bits);
    struct qcow2_pass pass = { blocks, compare_block, report_block, NULL };
    int status = qcow2_pass_run(state, &pass, err);
    const struct imgtk_check *result = state->result;
    /* Then the flags need no refcount to be looked up. */
    state->flags_by_references = status == 0 && result->corruptions == 0 && result->leaks == 0;
    return status;
}

/* ---- The steps ---------------------------------------------------------------- */

int qcow2_check_open(struct qcow2_check_state *state, struct qcow2 *image, struct imgtk_check *result,
                     struct imgtk_error *err)
{
    *state = (struct qcow2_check_state){ .image = image, .result = result };
    int status = imgtk_storage_size(image->file, &state->file_size, err);
    if (status != 0)
        return status;
    state->clusters = qcow2_clusters(&image->geometry, state->file_size);
    result->total_clusters = qcow2_clusters(&image->geometry, image->header.size);
    state->own.table = malloc((size_t)image->geometry.cluster_size);
    if (!state->own.table)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a table");
    return qcow2_tally_open(&state->tally, state->clusters + 1, err);
}

void qcow2_check_close(struct qcow2_check_state *state)
{
    qcow2_refcounts_forget(state);
    free(state->refcount_table);
    free(state->own.table);
    qcow2_tally_close(&state->tally);
}

int qcow2_check_count(struct qcow2_check_state *state, struct imgtk_error *err)
{
    int status = qcow2_count_references(state, err);
    if (status == 0)
        status = qcow2_refcounts_open(state, err);
    return status == 0 ? compare(state, err) : status;
}

/* ---- Repairing ---------------------------------------------------------------- */

/* Whether all can be set right at once. -r leaks alone does not touch what is worse than a leak. */
static bool can_rewrite(const struct qcow2_check_state *state)
{
    const struct imgtk_check *result = state->result;
    if (state->incomplete || state->beyond || state->rebuild || result->repair == 0)
        return false;
    return (result->repair & IMGTK_REPAIR_ERRORS) || (result->corruptions == 0 && result->check_errors == 0);
}

static void count_as_fixed(struct imgtk_check *result, uint64_t corruptions)
{
    result->corruptions -= corruptions;
    result->corruptions_fixed += corruptions;
    result->leaks_fixed += result->leaks;
    result->leaks = 0;
}

/* The flags are told as they would be with the right counts, which is how they will be judged from then on. */
static int repair_at_once(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct imgtk_check *result = state->result;
    uint64_t before = result->corruptions;
    state->flags_by_references = true;
    int status = qcow2_check_flags(state, false, err);
    state->flags_by_references = false;
    uint64_t fixable = state->too_low - state->too_high_to_count + (result->corruptions - before);
    if (status != 0 || (fixable == 0 && result->leaks == 0))
        return status;
    status = qcow2_repair_rewrite(state, err);
    if (status == 0)
        count_as_fixed(result, fixable);
    return status;
}

static int repair_step_by_step(struct qcow2_check_state *state, struct imgtk_error *err)
{
    uint32_t repair = state->result->repair;
    int status = repair & IMGTK_REPAIR_ERRORS ? qcow2_repair_raise(state, err) : 0;
    if (status == 0 && (repair & IMGTK_REPAIR_LEAKS))
        status = qcow2_repair_lower(state, err);
    if (status == 0)
        status = qcow2_refcounts_refresh(state, err);
    return status == 0 ? qcow2_check_flags(state, repair & IMGTK_REPAIR_ERRORS, err) : status;
}

static int check_and_repair(struct qcow2_check_state *state, struct imgtk_error *err)
{
    int status = qcow2_check_count(state, err);
    if (status != 0)
        return status;
    if (state->result->repair == 0)
        return qcow2_check_flags(state, false, err);
    status = can_rewrite(state) ? repair_at_once(state, err) : repair_step_by_step(state, err);
    return status == 0 ? qcow2_repair_mark_clean(state, err) : status;
}

int qcow2_check(void *handle, struct imgtk_check *check, struct imgtk_error *err)
{
    struct qcow2_check_state state;
    int status = qcow2_check_open(&state, handle, check, err);
    if (status == 0)
        status = check_and_repair(&state, err);
    qcow2_check_close(&state);
    return status;
}
