/* Making refcounts agree with the references; the order of steps is in check.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* ---- In place ------------------------------------------------------------- */

/* Sets the counts of one block that are too low (raise) or too high to what is referenced. */
static int adjust_block(struct qcow2_check_state *state, uint64_t index, bool raise, uint64_t *fixed,
                        struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    uint64_t first, end, offset = state->refcount_table[index];
    bool changed = false;
    if (offset == 0 || !qcow2_refcount_span(state, index, &first, &end))
        return 0;
    int status = imgtk_storage_pread(state->image->file, state->own.table, (size_t)geometry->cluster_size, offset, err);
    if (status != 0)
        return status;
    for (uint64_t cluster = first; cluster < end; cluster++) {
        uint64_t refcount = qcow2_refcount_get(state->own.table, cluster - first, geometry->refcount_order);
        uint64_t references = qcow2_tally_count(&state->tally, cluster);
        if (raise ? refcount >= references || references > qcow2_refcount_max(geometry->refcount_order)
                  : refcount <= references)
            continue;
        qcow2_refcount_put(state->own.table, cluster - first, geometry->refcount_order, references);
        changed = true;
        *fixed += !raise || qcow2_tally_use(&state->tally, cluster) != QCOW2_USE_CLASH;
    }
    if (!changed)
        return 0;
    return imgtk_storage_pwrite(state->image->file, state->own.table, (size_t)geometry->cluster_size, offset, err);
}

static int adjust(struct qcow2_check_state *state, bool raise, uint64_t *fixed, struct imgtk_error *err)
{
    int status = 0;
    *fixed = 0;
    for (uint64_t i = 0; i < state->refcount_blocks && status == 0; i++)
        status = adjust_block(state, i, raise, fixed, err);
    return status == 0 ? imgtk_storage_flush(state->image->file, err) : status;
}

/* ---- New tables -------------------------------------------------------------- */

/* Where new refcount blocks and a new table go: one after another behind the end of the file. In clusters. */
struct plan {
    uint64_t start, blocks, table;
};

static int plan_tables(const struct qcow2_check_state *state, struct plan *out, struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    uint64_t blocks = 0, table = 0;
    *out = (struct plan){ .start = state->clusters };
    /* They count themselves, so their number is found step by step. */
    do {
        out->blocks = blocks;
        out->table = table;
        blocks = imgtk_div_round_up(out->start + out->blocks + out->table, UINT64_C(1) << geometry->refcount_block_bits);
        table = qcow2_clusters(geometry, blocks * 8);
    } while (blocks != out->blocks || table != out->table);
    if (table << geometry->cluster_bits > QCOW2_MAX_REFCOUNT_TABLE_BYTES)
        return imgtk_fail(err, IMGTK_ELIMIT, "refcount table of %" PRIu64 " bytes is above the limit of %" PRIu64,
                          table << geometry->cluster_bits, QCOW2_MAX_REFCOUNT_TABLE_BYTES);
    return 0;
}

/* The old table and its blocks are not referenced any more. */
static void release_old_tables(struct qcow2_check_state *state)
{
    const struct qcow2_header *header = &state->image->header;
    for (uint64_t i = 0; i < state->refcount_blocks; i++)
        if (state->refcount_table[i] != 0)
            qcow2_tally_subtract(&state->tally, state->refcount_table[i] >> header->cluster_bits);
    if (state->refcount_table) /* else it lies outside the file and was not counted */
        for (uint64_t i = 0; i < header->refcount_table_clusters; i++)
            qcow2_tally_subtract(&state->tally, (header->refcount_table_offset >> header->cluster_bits) + i);
}

static uint64_t new_refcount(const struct qcow2_check_state *state, const struct plan *plan, uint64_t cluster,
                             uint64_t *unfixable)
{
    uint64_t max = qcow2_refcount_max(state->image->geometry.refcount_order);
    if (cluster >= plan->start)
        return cluster < plan->start + plan->blocks + plan->table;
    uint64_t references = qcow2_tally_count(&state->tally, cluster);
    if (references <= max)
        return references;
    *unfixable += qcow2_tally_use(&state->tally, cluster) != QCOW2_USE_CLASH;
    return max;
}

static int write_blocks(struct qcow2_check_state *state, const struct plan *plan, uint64_t *unfixable,
                        struct imgtk_error *err)
{
    const struct qcow2_geometry *geometry = &state->image->geometry;
    int status = 0;
    *unfixable = 0;
    for (uint64_t i = 0; i < plan->blocks && status == 0; i++) {
        uint64_t entries = UINT64_C(1) << geometry->refcount_block_bits;
        memset(state->own.table, 0, (size_t)geometry->cluster_size);
        for (uint64_t j = 0; j < entries; j++)
            qcow2_refcount_put(state->own.table, j, geometry->refcount_order,
                               new_refcount(state, plan, i * entries + j, unfixable));
        status = imgtk_storage_pwrite(state->image->file, state->own.table, (size_t)geometry->cluster_size,
                                      (plan->start + i) << geometry->cluster_bits, err);
    }
    return status;
}

static int write_table(struct qcow2_check_state *state, const struct plan *plan, struct imgtk_error *err)
{
    unsigned bits = state->image->geometry.cluster_bits;
    size_t bytes = (size_t)(plan->table << bits);
    uint64_t *table = calloc(1, bytes), *kept = calloc(1, bytes);
    int status = 0;
    if (!table || !kept)
        status = imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a refcount table of %zu bytes", bytes);
    for (uint64_t i = 0; i < plan->blocks && status == 0; i++) {
        kept[i] = (plan->start + i) << bits;
        imgtk_put_be64(&table[i], kept[i]);
    }
    if (status == 0)
        status = imgtk_storage_pwrite(state->image->file, table, bytes, (plan->start + plan->blocks) << bits, err);
    free(table);
    if (status != 0) {
        free(kept);
        return status;
    }
    free(state->refcount_table);
    state->refcount_table = kept;
    state->refcount_blocks = plan->blocks;
    return 0;
}

/* The step that counts: one small write, within a sector, makes the new tables the image's. */
static int take_over(struct qcow2_check_state *state, const struct plan *plan, struct imgtk_error *err)
{
    struct qcow2 *image = state->image;
    uint8_t fields[12];
    uint64_t offset = (plan->start + plan->blocks) << image->geometry.cluster_bits;
    imgtk_put_be64(fields, offset);
    imgtk_put_be32(fields + 8, (uint32_t)plan->table);
    int status = imgtk_storage_flush(image->file, err);
    if (status == 0)
        status = imgtk_storage_pwrite(image->file, fields, sizeof(fields), QCOW2_AT_REFCOUNT_TABLE_OFFSET, err);
    if (status == 0)
        status = imgtk_storage_flush(image->file, err);
    if (status != 0)
        return status;
    image->header.refcount_table_offset = offset;
    image->header.refcount_table_clusters = (uint32_t)plan->table;
    return 0;
}

static int rebuild(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct plan plan;
    uint64_t unfixable;
    struct imgtk_check *result = state->result;
    if (state->incomplete || state->beyond) {
        qcow2_check_report(state, "The refcounts are not rebuilt: other damage hides what is referenced, or where new "
                                  "tables can be");
        return 0;
    }
    int status = plan_tables(state, &plan, err);
    if (status != 0)
        return status;
    release_old_tables(state);
    status = write_blocks(state, &plan, &unfixable, err);
    if (status == 0)
        status = write_table(state, &plan, err);
    if (status == 0)
        status = take_over(state, &plan, err);
    if (status != 0)
        return status;
    uint64_t fixed = state->too_low + state->table_faults - unfixable;
    result->corruptions -= fixed;
    result->corruptions_fixed += fixed;
    result->leaks_fixed += result->leaks;
    result->leaks = 0;
    return qcow2_refcounts_refresh(state, err);
}

/* ---- Steps ---------------------------------------------------------------------- */

int qcow2_repair_raise(struct qcow2_check_state *state, struct imgtk_error *err)
{
    uint64_t fixed;
    if (state->rebuild)
        return rebuild(state, err);
    int status = adjust(state, true, &fixed, err);
    state->result->corruptions -= fixed;
    state->result->corruptions_fixed += fixed;
    return status;
}

int qcow2_repair_lower(struct qcow2_check_state *state, struct imgtk_error *err)
{
    uint64_t fixed;
    if (state->result->leaks == 0)
        return 0;
    if (state->incomplete || state->rebuild) {
        qcow2_check_report(state, "The leaks are kept: other damage hides what is referenced");
        return 0;
    }
    int status = adjust(state, false, &fixed, err);
    state->result->leaks -= fixed;
    state->result->leaks_fixed += fixed;
    return status;
}

int qcow2_repair_mark_clean(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct qcow2_header *header = &state->image->header;
    uint64_t cleared = header->incompatible & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    uint8_t field[8];
    if (state->result->corruptions != 0 || state->result->check_errors != 0 || cleared == header->incompatible)
        return 0;
    imgtk_put_be64(field, cleared);
    int status = imgtk_storage_pwrite(state->image->file, field, sizeof(field), QCOW2_AT_INCOMPATIBLE, err);
    if (status == 0)
        status = imgtk_storage_flush(state->image->file, err);
    if (status == 0)
        header->incompatible = cleared;
    return status;
}
