/*
 * Changing an image in place. Nothing that the image on disk refers to is written over, but data with data: tables,
 * refcount blocks and the refcount table that change get new places, in clusters that the image on disk does not use,
 * and one write of the header makes all of them the image's. Until then the file holds the old image, from then on the
 * new one, and both are consistent.
 *
 * Refcounts are not taken from the file: all references are counted, as `check` does, before the first change that
 * depends on them, and an image with corruptions is refused.
 */
#ifndef IMGTK_QCOW2_EDIT_H
#define IMGTK_QCOW2_EDIT_H

#include "check.h"

/* What is known of a refcount block since the last commit. */
enum qcow2_block { QCOW2_BLOCK_SAME, QCOW2_BLOCK_CHANGED, QCOW2_BLOCK_PLACED };

struct qcow2_edit {
    struct qcow2 *image;
    uint64_t file_size;        /* of the image on disk, bytes: what is behind it was written since the last commit */
    bool same_disk;            /* see struct imgtk_edit */
    bool settled;              /* nothing has been begun since the last commit */
    bool committing;           /* the header may be the new one already */

    /* The header's cluster: as it will be, and as it is on disk. */
    uint8_t *head, *head_on_disk;

    /* Clusters (edit_clusters.c); valid when `counted`. */
    bool checked, counted;
    struct imgtk_check result;
    struct qcow2_check_state check; /* tally: references of the image to come; refcount_table: its blocks */
    uint8_t *freed;            /* a bit per cluster: used by the image on disk, and not by the one to come */
    /* Of n: where runs of 2^n clusters and more, below 2^(n+1), are looked for. No cluster before next[0] is free. */
    uint64_t next[64];
    uint8_t *blocks;           /* enum qcow2_block, for each block that the clusters of the tally need */
    uint64_t block_room;
    uint64_t table_offset;     /* the refcount table of the image to come */
    uint32_t table_clusters;
    bool table_placed;

    /* Tables (edit_tables.c) */
    uint64_t size;             /* virtual, of the image to come */
    uint64_t *l1;              /* host order, l1_entries of them */
    uint64_t l1_entries;
    bool l1_changed;
    uint8_t *placed;           /* a bit per L1 entry: its table has been given a new place since the last commit */
    uint8_t *l2;               /* the table at hand, as on disk */
    uint64_t l2_index;         /* its L1 entry; UINT64_MAX: none is at hand */
    bool l2_changed;
    uint8_t *cluster;          /* one cluster of bytes, for whoever needs it for a moment */
    struct qcow2_edit_bitmaps *bitmaps; /* NULL: not looked at; see edit_bitmaps.c */
    bool compact;              /* much has been freed: after the commit, tables move to the beginning of the file */
};

/* ---- edit.c ----------------------------------------------------------------- */

/* Counts the references, unless that has been done; IMGTK_ECORRUPT when the image contradicts itself. */
int qcow2_edit_count(struct qcow2_edit *edit, struct imgtk_error *err);
/* IMGTK_EREFUSED: the external data file was not opened. */
int qcow2_edit_need_data(const struct qcow2_edit *edit, struct imgtk_error *err);
/* The driver's ops take a handle: the edit behind it, which edit_begin made. */
struct qcow2_edit *qcow2_edit_of(void *handle);
/* Gives up what was not committed; NULL is allowed. */
void qcow2_edit_free(struct qcow2_edit *edit);

static inline bool qcow2_edit_inside(const struct qcow2_edit *edit) /* data clusters lie in the image itself */
{
    return !(edit->image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE);
}

static inline bool qcow2_edit_raw_data(const struct qcow2_edit *edit) /* the data file must read as the disk does */
{
    return !qcow2_edit_inside(edit) && (edit->image->header.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
}

/* ---- Clusters (edit_clusters.c) ------------------------------------------------- */

int qcow2_edit_clusters_open(struct qcow2_edit *edit, struct imgtk_error *err);
/* `count` clusters in a row that neither image uses, with one reference each. */
int qcow2_edit_allocate(struct qcow2_edit *edit, uint64_t count, enum qcow2_use use, uint64_t *offset,
                        struct imgtk_error *err);
/* One more reference to the cluster; IMGTK_ELIMIT: its refcount cannot count it. */
int qcow2_edit_reference(struct qcow2_edit *edit, uint64_t cluster, enum qcow2_use use, struct imgtk_error *err);
/* One less. The cluster of the last one is free only after the commit. */
int qcow2_edit_release(struct qcow2_edit *edit, uint64_t cluster, struct imgtk_error *err);
/* The same for all clusters of a range of bytes. */
int qcow2_edit_release_range(struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err);
uint64_t qcow2_edit_references(const struct qcow2_edit *edit, uint64_t offset);
/* Has the blocks written anew that do not say what the references are. */
int qcow2_edit_mark_wrong_refcounts(struct qcow2_edit *edit, struct imgtk_error *err);
/* Writes the refcount blocks that changed, and the table, to new places. */
int qcow2_edit_write_refcounts(struct qcow2_edit *edit, struct imgtk_error *err);
/* After a commit: what was freed is free. Cuts off what is unused at the end of the file. */
int qcow2_edit_clusters_settle(struct qcow2_edit *edit, struct imgtk_error *err);
/* Has every refcount block and the table placed anew. */
void qcow2_edit_move_refcounts(struct qcow2_edit *edit);

/* ---- Tables (edit_tables.c) ------------------------------------------------------- */

int qcow2_edit_tables_open(struct qcow2_edit *edit, struct imgtk_error *err);
/* Makes the L2 table of that L1 entry the one at hand; where there is none yet, an empty one. */
int qcow2_edit_select(struct qcow2_edit *edit, uint64_t index, struct imgtk_error *err);
/* The table at hand will be changed: has a place of its own from now on. */
int qcow2_edit_touch(struct qcow2_edit *edit, struct imgtk_error *err);
/* Writes the table at hand, if it has changed. */
int qcow2_edit_write_l2(struct qcow2_edit *edit, struct imgtk_error *err);
/* Writes the L1 table to a new place, if it has changed. */
int qcow2_edit_write_l1(struct qcow2_edit *edit, struct imgtk_error *err);
int qcow2_edit_l1_resize(struct qcow2_edit *edit, uint64_t entries, struct imgtk_error *err);
/* Releases what an L2 entry refers to. */
int qcow2_edit_release_entry(struct qcow2_edit *edit, uint64_t entry, struct imgtk_error *err);
/* Adds (or takes away) a reference to each table and cluster that these L1 entries lead to. */
int qcow2_edit_count_tree(struct qcow2_edit *edit, const uint64_t *l1, uint64_t entries, bool add,
                          struct imgtk_error *err);
/* Sets the "copied" flags of the active tables to what the references say. */
int qcow2_edit_set_flags(struct qcow2_edit *edit, struct imgtk_error *err);
/* Clears them all, in the L2 tables and in the L1 table. */
int qcow2_edit_clear_flags(struct qcow2_edit *edit, struct imgtk_error *err);
/* Takes away all that the active tables hold at and behind that guest offset, a multiple of the cluster size. */
int qcow2_edit_drop(struct qcow2_edit *edit, uint64_t offset, struct imgtk_error *err);
/* Whether they hold anything there. */
int qcow2_edit_holds(struct qcow2_edit *edit, uint64_t offset, bool *out, struct imgtk_error *err);

/* ---- Data (edit_data.c) ---------------------------------------------------------------- */

/* Takes away the whole subclusters that the cluster in which the guest offset lies has behind it. */
int qcow2_edit_cut(struct qcow2_edit *edit, uint64_t end, struct imgtk_error *err);

/* ---- Header (edit_header.c) --------------------------------------------- */

bool qcow2_edit_has_backing(const struct qcow2_edit *edit); /* the image on disk or the one to come */
/* Puts what has changed into the header and writes it: the commit. */
int qcow2_edit_write_header(struct qcow2_edit *edit, struct imgtk_error *err);
/* Puts the place of the bitmaps' directory into it. */
int qcow2_edit_put_bitmaps(struct qcow2_edit *edit, uint64_t directory_offset, struct imgtk_error *err);

/* ---- Bitmaps (edit_bitmaps.c) --------------------------------------------------------- */

/* The guest's bytes in the range, which lies within the new size, change: unless the disk stays the same. */
int qcow2_edit_bitmaps_record(struct qcow2_edit *edit, uint64_t offset, uint64_t length, struct imgtk_error *err);
/* Makes the bitmaps those of a disk of that size. */
int qcow2_edit_bitmaps_resize(struct qcow2_edit *edit, uint64_t size, struct imgtk_error *err);
/* Writes what has changed of them to new places. */
int qcow2_edit_bitmaps_write(struct qcow2_edit *edit, struct imgtk_error *err);
/* Forgets what is known of them. */
void qcow2_edit_bitmaps_free(struct qcow2_edit *edit);

#endif
