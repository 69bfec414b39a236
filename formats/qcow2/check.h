/*
 * Checking: how often each cluster of the file is referenced (references.c),
 * what the refcounts say (refcounts.c), whether the two and the "copied" flags
 * agree (check.c, flags.c), and how to make them agree (repair.c).
 */
#ifndef IMGTK_QCOW2_CHECK_H
#define IMGTK_QCOW2_CHECK_H

#include "qcow2.h"

/* ---- References by cluster (tally.c) ------------------------------------------ */

/* What a cluster is used for, as far as it matters which uses may share one. */
enum qcow2_use {
    QCOW2_USE_DATA,    /* may be shared by any number of L2 entries */
    QCOW2_USE_L2,      /* may be shared by snapshots */
    QCOW2_USE_ALONE,   /* other metadata: shared with nothing */
    QCOW2_USE_CLASH    /* uses that exclude each other */
};

/* One byte per cluster, four from the moment that one of them does not suffice. */
struct qcow2_tally {
    void *counts;
    bool wide;
    uint64_t clusters;
};

int qcow2_tally_open(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err);
void qcow2_tally_close(struct qcow2_tally *tally);
/* Room for that many clusters at least; what is new has no references. */
int qcow2_tally_grow(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err);
/* cluster < clusters. Counts beyond 2^30 - 1 stay there. */
int qcow2_tally_add(struct qcow2_tally *tally, uint64_t cluster, enum qcow2_use use, struct imgtk_error *err);
void qcow2_tally_subtract(struct qcow2_tally *tally, uint64_t cluster);

/* An entry is the count, shifted by two, and the use. */
enum { QCOW2_TALLY_USE_BITS = 2, QCOW2_TALLY_USE_MASK = 3 };

static inline uint32_t qcow2_tally_entry(const struct qcow2_tally *tally, uint64_t cluster)
{
    return tally->wide ? ((const uint32_t *)tally->counts)[cluster] : ((const uint8_t *)tally->counts)[cluster];
}

static inline uint64_t qcow2_tally_count(const struct qcow2_tally *tally, uint64_t cluster)
{
    return qcow2_tally_entry(tally, cluster) >> QCOW2_TALLY_USE_BITS;
}

static inline enum qcow2_use qcow2_tally_use(const struct qcow2_tally *tally, uint64_t cluster)
{
    return qcow2_tally_entry(tally, cluster) & QCOW2_TALLY_USE_MASK;
}

/* ---- One run of the check ------------------------------------------------------- */

struct qcow2_check_state {
    struct qcow2 *image;
    struct imgtk_check *result;
    /* clusters: of the file, a partial one at its end included; and one more when a reference reaches there, which
       the end of a compressed cluster may. */
    uint64_t file_size, clusters;
    struct qcow2_tally tally;
    uint8_t *table;                 /* one cluster: the L2 table or refcount block at hand */
    uint64_t *refcount_table;       /* host order; entries that cannot be used are 0 */
    uint64_t refcount_blocks;       /* entries of it */
    struct imgtk_cache *blocks;     /* refcount blocks, by offset */
    const void *held_block;         /* of the cache; NULL: none */
    uint64_t held_index;
    bool flags_by_references;       /* the flags are judged by what is referenced, not by the refcounts */
    bool incomplete;                /* not all references could be counted: no count may be lowered */
    bool beyond;                    /* something refers to what is behind the end of the file: nothing may come there */
    bool rebuild;                   /* the refcount table or a block of it cannot be used */
    uint64_t table_faults;          /* corruptions that a rebuild of the refcounts removes */
    uint64_t too_low;               /* corruptions: clusters whose refcount is below the references */
    uint64_t too_high_to_count;     /* those of them whose references no refcount of that width can count */
};

void qcow2_check_report(struct qcow2_check_state *state, const char *format, ...) IMGTK_PRINTF(2, 3);
/* The same, counted as a corruption. */
void qcow2_check_corruption(struct qcow2_check_state *state, const char *format, ...) IMGTK_PRINTF(2, 3);

/* ---- Steps ------------------------------------------------------------------------ */

int qcow2_check_open(struct qcow2_check_state *state, struct qcow2 *image, struct imgtk_check *result,
                     struct imgtk_error *err);
void qcow2_check_close(struct qcow2_check_state *state); /* also after a failure */
/* Counts all references and compares them with the refcounts. */
int qcow2_check_count(struct qcow2_check_state *state, struct imgtk_error *err);

/* Counts every reference but those of the refcount table and its blocks; fills the statistics. */
int qcow2_count_references(struct qcow2_check_state *state, struct imgtk_error *err);
/* Counts [offset, offset + length) as used. False: it reaches too far beyond the file, which is reported. */
bool qcow2_count_range(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                       int *status, struct imgtk_error *err);

/* Loads the refcount table, and counts its references and those of its blocks. */
int qcow2_refcounts_open(struct qcow2_check_state *state, struct imgtk_error *err);
/* What the image says of one cluster; 0 where there is no block. */
int qcow2_refcount_of(struct qcow2_check_state *state, uint64_t cluster, uint64_t *out, struct imgtk_error *err);
/* Gives back what is held and cached of the blocks. */
void qcow2_refcounts_forget(struct qcow2_check_state *state);
/* The same, to read them anew since they have changed. */
int qcow2_refcounts_refresh(struct qcow2_check_state *state, struct imgtk_error *err);
/* The clusters whose refcounts the block of that table index holds: [*first, *end). False: there are none. */
bool qcow2_refcount_span(const struct qcow2_check_state *state, uint64_t index, uint64_t *first, uint64_t *end);

/* The "copied" flags of the active L1 and L2 tables (flags.c); with repair, sets them right. */
int qcow2_check_flags(struct qcow2_check_state *state, bool repair, struct imgtk_error *err);

/*
 * Repair. Where all references are known and the refcount table can be used,
 * everything at once: blocks and tables with right counts and flags go to new
 * places, and the header takes them over (edit.c). Else step by step, each on
 * disk before the next begins, so that an interruption leaves a count too high
 * at worst, where it was not too low before: raise counts (in place, or in new
 * tables that the header takes over at last), lower counts, set the flags. At
 * last, clear the dirty and corrupt bits when nothing is left.
 */
int qcow2_repair_rewrite(struct qcow2_check_state *state, struct imgtk_error *err);
int qcow2_repair_raise(struct qcow2_check_state *state, struct imgtk_error *err);
int qcow2_repair_lower(struct qcow2_check_state *state, struct imgtk_error *err);
int qcow2_repair_mark_clean(struct qcow2_check_state *state, struct imgtk_error *err);

#endif
