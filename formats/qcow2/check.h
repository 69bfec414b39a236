/*
 * Checking: how often each cluster of the file is referenced (references.c,
 * l1.c, l2.c, shared.c), what the refcounts say (refcounts.c), whether the two
 * and the "copied" flags agree (check.c, flags.c), and how to make them agree
 * (repair.c).
 */
#ifndef IMGTK_QCOW2_CHECK_H
#define IMGTK_QCOW2_CHECK_H

#include <inttypes.h>

#include "qcow2.h"

/* ---- References by cluster (tally.c) ------------------------------------------ */

/* What a cluster is used for, as far as it matters which uses may share one. */
enum qcow2_use {
    QCOW2_USE_DATA,    /* may be shared by any number of L2 entries */
    QCOW2_USE_L2,      /* may be shared by snapshots */
    QCOW2_USE_ALONE,   /* other metadata: shared with nothing */
    QCOW2_USE_CLASH    /* uses that exclude each other */
};

/* Clusters are counted in pages of this many; what a page has not is all zero. */
enum { QCOW2_TALLY_PAGE_BITS = 12, QCOW2_TALLY_PAGE = 1 << QCOW2_TALLY_PAGE_BITS };

/* An entry has 2^order bits, QCOW2_TALLY_MIN_ORDER at first, more once a count of the page does not fit. */
struct qcow2_tally_page {
    void *entries; /* NULL: none of the clusters is referenced */
    unsigned order;
};

enum { QCOW2_TALLY_MIN_ORDER = 2, QCOW2_TALLY_MAX_ORDER = 5 };

struct qcow2_tally {
    struct qcow2_tally_page *pages;
    uint64_t clusters;
    struct qcow2_tally_locks *locks; /* of the pages, while they are added to */
};

int qcow2_tally_open(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err);
void qcow2_tally_close(struct qcow2_tally *tally);
/* Room for that many clusters at least; what is new has no references. */
int qcow2_tally_grow(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err);
/* One reference to each of `count` clusters from `first` on, all below tally->clusters. Counts beyond 2^30 - 1 stay
   there. Any number of threads may add; all else is for one thread while nobody adds, or only reads. */
int qcow2_tally_add(struct qcow2_tally *tally, uint64_t first, uint64_t count, enum qcow2_use use,
                    struct imgtk_error *err);
/* The same for several references of one kind to each. */
struct qcow2_references {
    enum qcow2_use use;
    uint32_t times; /* above 0 */
};
int qcow2_tally_add_references(struct qcow2_tally *tally, uint64_t first, uint64_t count, struct qcow2_references what,
                               struct imgtk_error *err);
void qcow2_tally_subtract(struct qcow2_tally *tally, uint64_t cluster);

/* An entry is the count, shifted by two, and the use. */
enum { QCOW2_TALLY_USE_BITS = 2, QCOW2_TALLY_USE_MASK = 3 };

static inline uint32_t qcow2_tally_entry(const struct qcow2_tally *tally, uint64_t cluster)
{
    const struct qcow2_tally_page *page = &tally->pages[cluster >> QCOW2_TALLY_PAGE_BITS];
    uint64_t at = cluster % QCOW2_TALLY_PAGE;
    if (!page->entries)
        return 0;
    switch (page->order) {
    case 2: return (uint32_t)((const uint8_t *)page->entries)[at / 2] >> (at % 2 * 4) & 0xfu;
    case 3: return ((const uint8_t *)page->entries)[at];
    case 4: return ((const uint16_t *)page->entries)[at];
    default: return ((const uint32_t *)page->entries)[at];
    }
}

static inline uint64_t qcow2_tally_count(const struct qcow2_tally *tally, uint64_t cluster)
{
    return qcow2_tally_entry(tally, cluster) >> QCOW2_TALLY_USE_BITS;
}

static inline enum qcow2_use qcow2_tally_use(const struct qcow2_tally *tally, uint64_t cluster)
{
    return (enum qcow2_use)(qcow2_tally_entry(tally, cluster) & QCOW2_TALLY_USE_MASK);
}

/* Whether none of the clusters [first, end) is referenced, as far as that shows without looking at each. */
static inline bool qcow2_tally_is_blank(const struct qcow2_tally *tally, uint64_t first, uint64_t end)
{
    for (uint64_t page = first >> QCOW2_TALLY_PAGE_BITS; page << QCOW2_TALLY_PAGE_BITS < end; page++)
        if (tally->pages[page].entries)
            return false;
    return true;
}

/* ---- One run of the check ------------------------------------------------------- */

/* What one thread has for itself. */
struct qcow2_check_worker {
    uint8_t *table;                 /* one cluster: the L2 table or refcount block at hand */
    const void *held_block;         /* of the cache; NULL: none */
    uint64_t held_index;
    /* What it has found, for the state when it is done (parallel.c). */
    uint64_t allocated, fragmented, compressed, end_cluster;
    bool incomplete, beyond, rebuild;
};

struct qcow2_check_state {
    struct qcow2 *image;
    struct imgtk_check *result;
    /* clusters: of the file, a partial one at its end included; and one more when a reference reaches there, which
       the end of a compressed cluster may. */
    uint64_t file_size, clusters;
    struct qcow2_tally tally;
    uint64_t l1_tables;             /* whose entries were counted; the active one comes first */
    struct qcow2_tally named;       /* L1 entries by the L2 table that they name (shared.c) */
    struct qcow2_tally faults;      /* corruptions by the L2 table that has them */
    struct qcow2_check_worker own;  /* of the caller's thread */
    uint64_t *refcount_table;       /* host order; entries that cannot be used are 0 */
    uint64_t refcount_blocks;       /* entries of it */
    struct imgtk_cache *blocks;     /* refcount blocks, by offset */
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

/* ---- Many items, all threads (parallel.c) ------------------------------------------- */

/*
 * A pass looks at each item in any thread and in any order, and silently, but for *tell: the second function is called
 * for the items that set it, in their order and in the caller's thread. So what is reported does not depend on the
 * number of workers, and no report has to be kept.
 */
struct qcow2_pass {
    uint64_t items;
    int (*look)(struct qcow2_check_state *state, struct qcow2_check_worker *worker, void *context, uint64_t item,
                bool *tell, struct imgtk_error *err);
    int (*tell)(struct qcow2_check_state *state, void *context, uint64_t item, struct imgtk_error *err);
    void *context;
};
/* The failure of the first item that fails ends it. */
int qcow2_pass_run(struct qcow2_check_state *state, const struct qcow2_pass *pass, struct imgtk_error *err);

/* ---- Steps ------------------------------------------------------------------------ */

int qcow2_check_open(struct qcow2_check_state *state, struct qcow2 *image, struct imgtk_check *result,
                     struct imgtk_error *err);
void qcow2_check_close(struct qcow2_check_state *state); /* also after a failure */
/* Counts all references and compares them with the refcounts. */
int qcow2_check_count(struct qcow2_check_state *state, struct imgtk_error *err);

/* Where something reaches to: its offset and length, the file's size. */
#define QCOW2_BEYOND_FORMAT \
    "ERROR reference to 0x%" PRIx64 " of %" PRIu64 " bytes reaches beyond the end of the file at 0x%" PRIx64

/* Counts every reference but those of the refcount table and its blocks; fills the statistics. */
int qcow2_count_references(struct qcow2_check_state *state, struct imgtk_error *err);
/* Counts [offset, offset + length) as used. False: it reaches too far beyond the file, which is reported. */
bool qcow2_count_range(struct qcow2_check_state *state, uint64_t offset, uint64_t length, enum qcow2_use use,
                       int *status, struct imgtk_error *err);

/*
 * The same for a table that will be read, which shares its clusters with nothing: the file must hold all of it, and it
 * nothing else. So no byte of the file is gone over twice as a table, or counted, however many tables are said to be
 * there.
 */
bool qcow2_count_table(struct qcow2_check_state *state, uint64_t offset, uint64_t length, int *status,
                       struct imgtk_error *err);
#define QCOW2_CUT_OFF_FORMAT \
    "ERROR table at 0x%" PRIx64 " of %" PRIu64 " bytes is cut off by the end of the file at 0x%" PRIx64

/* Counts an L1 table and all that it refers to (l1.c). active: not a snapshot's. */
int qcow2_count_l1(struct qcow2_check_state *state, uint64_t l1_offset, uint64_t entries, bool active,
                   struct imgtk_error *err);

/* Whether [offset, offset + length), which is not empty, lies in the file; its last cluster may be cut short. */
bool qcow2_range_is_inside(const struct qcow2_check_state *state, uint64_t offset, uint64_t length);

/* One walk over an L2 table, which lies in the file. */
struct qcow2_l2_visit {
    uint64_t l2_offset;
    uint32_t times;         /* for so many L1 entries that name it */
    bool active;            /* one of them is the active table's, so that it counts for the statistics */
};
/* Counts what the table refers to (l2.c). *tell: there are faults. */
int qcow2_count_l2(struct qcow2_check_state *state, struct qcow2_check_worker *worker,
                   const struct qcow2_l2_visit *visit, bool *tell, struct imgtk_error *err);
/* Reports the faults. */
int qcow2_report_l2(struct qcow2_check_state *state, uint64_t l2_offset, struct imgtk_error *err);

/* L2 tables that several L1 entries name (shared.c). */
int qcow2_shared_open(struct qcow2_check_state *state, struct imgtk_error *err);
void qcow2_shared_close(struct qcow2_check_state *state); /* also when it was not opened */
/* An entry names that table. *again: so did another, and what the table refers to is counted for this one later. */
int qcow2_shared_name(struct qcow2_check_state *state, uint64_t l2_offset, bool *again, struct imgtk_error *err);
/* What is wrong in the table is told once, and counts for each entry that names it. */
int qcow2_shared_keep_faults(struct qcow2_check_state *state, uint64_t l2_offset, uint64_t corruptions,
                             struct imgtk_error *err);
uint64_t qcow2_shared_faults(const struct qcow2_check_state *state, uint64_t l2_offset);
/* Counts for the entries that named a table again, when all L1 tables have been read. */
int qcow2_shared_count(struct qcow2_check_state *state, struct imgtk_error *err);

/* Loads the refcount table, and counts its references and those of its blocks. */
int qcow2_refcounts_open(struct qcow2_check_state *state, struct imgtk_error *err);
/* What the image says of one cluster; 0 where there is no block. */
int qcow2_refcount_of(struct qcow2_check_state *state, struct qcow2_check_worker *worker, uint64_t cluster,
                      uint64_t *out, struct imgtk_error *err);
/* Gives back what the worker holds. */
void qcow2_refcounts_let_go(struct qcow2_check_state *state, struct qcow2_check_worker *worker);
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
