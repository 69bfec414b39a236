/*
 * L2 tables that several L1 tables name, as those of snapshots do. The first entry that names a table has it gone over;
 * the others are only counted, and once all L1 tables are read, what it refers to is counted for them in one go. Its
 * faults are told once. So the cost is that of the tables, not that of the tables times the snapshots.
 */
#include "check.h"

/* Without snapshots there is one L1 table, and what that names twice is a fault (l1.c). */
static bool is_wanted(const struct qcow2_check_state *state)
{
    return state->image->header.snapshot_count > 0;
}

static uint64_t cluster_of(const struct qcow2_check_state *state, uint64_t l2_offset)
{
    return l2_offset >> state->image->geometry.cluster_bits;
}

int qcow2_shared_open(struct qcow2_check_state *state, struct imgtk_error *err)
{
    if (!is_wanted(state))
        return 0;
    int status = qcow2_tally_open(&state->named, state->clusters, err);
    return status ? status : qcow2_tally_open(&state->faults, state->clusters, err);
}

void qcow2_shared_close(struct qcow2_check_state *state)
{
    qcow2_tally_close(&state->faults);
    qcow2_tally_close(&state->named);
}

int qcow2_shared_name(struct qcow2_check_state *state, uint64_t l2_offset, bool *again, struct imgtk_error *err)
{
    uint64_t cluster = cluster_of(state, l2_offset);
    *again = is_wanted(state) && qcow2_tally_count(&state->named, cluster) > 0;
    return is_wanted(state) ? qcow2_tally_add(&state->named, cluster, 1, QCOW2_USE_L2, err) : 0;
}

/* ---- Tables with faults -------------------------------------------------------- */

int qcow2_shared_keep_faults(struct qcow2_check_state *state, uint64_t l2_offset, uint64_t corruptions,
                             struct imgtk_error *err)
{
    if (!is_wanted(state) || corruptions == 0)
        return 0;
    struct qcow2_references what = { QCOW2_USE_L2, (uint32_t)imgtk_min_u64(corruptions, UINT32_MAX) };
    return qcow2_tally_add_references(&state->faults, cluster_of(state, l2_offset), 1, what, err);
}

uint64_t qcow2_shared_faults(const struct qcow2_check_state *state, uint64_t l2_offset)
{
    return qcow2_tally_count(&state->faults, cluster_of(state, l2_offset));
}

/* ---- Counting for the other entries ---------------------------------------------- */

/* Tables that were named again; as many as all threads can be busy with for a while. */
struct tables {
    uint64_t count;
    uint64_t clusters[1024];
};

static int count_table(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context,
                       uint64_t index, bool *tell, struct imgtk_error *err)
{
    const struct tables *tables = context;
    uint64_t cluster = tables->clusters[index];
    struct qcow2_l2_visit visit = { .l2_offset = cluster << state->image->geometry.cluster_bits,
                                    .times = (uint32_t)qcow2_tally_count(&state->named, cluster) - 1 };
    bool told = false;
    (void)tell; /* the faults were told when it was named first */
    return qcow2_count_l2(state, worker, &visit, &told, err);
}

static int count_tables(struct qcow2_check_state *state, struct tables *tables, struct imgtk_error *err)
{
    struct qcow2_pass pass = { .items = tables->count, .look = count_table, .context = tables };
    int status = qcow2_pass_run(state, &pass, err);
    tables->count = 0;
    return status;
}

/* Adds those of a page of clusters to `tables`, which are counted when there is no room for more. */
static int count_page(struct qcow2_check_state *state, struct tables *tables, uint64_t first, uint64_t end,
                      struct imgtk_error *err)
{
    int status = 0;
    for (uint64_t cluster = first; cluster < end && status == 0; cluster++) {
        if (qcow2_tally_count(&state->named, cluster) < 2)
            continue;
        tables->clusters[tables->count++] = cluster;
        if (tables->count == sizeof(tables->clusters) / sizeof(tables->clusters[0]))
            status = count_tables(state, tables, err);
    }
    return status;
}

int qcow2_shared_count(struct qcow2_check_state *state, struct imgtk_error *err)
{
    struct tables tables = { .count = 0 };
    int status = 0;
    for (uint64_t first = 0; first < state->named.clusters && status == 0; first += QCOW2_TALLY_PAGE) {
        uint64_t end = imgtk_min_u64(first + QCOW2_TALLY_PAGE, state->named.clusters);
        if (!qcow2_tally_is_blank(&state->named, first, end))
            status = count_page(state, &tables, first, end, err);
    }
    return status == 0 ? count_tables(state, &tables, err) : status;
}
