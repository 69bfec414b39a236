/*
 * What the files that write qcow2 images share. A writer fills its target in
 * guest order: within the turn of a write it takes host clusters one after the
 * other and sets the entries of the one L2 table that is being filled, so that
 * memory does not grow with the disk and the same input makes the same file.
 */
#ifndef IMGTK_QCOW2_WRITER_H
#define IMGTK_QCOW2_WRITER_H

#include "qcow2.h"

/* ---- Options (options.c) --------------------------------------------------- */

enum qcow2_preallocation {
    QCOW2_PREALLOCATION_OFF,
    QCOW2_PREALLOCATION_METADATA,
    QCOW2_PREALLOCATION_FALLOC,
    QCOW2_PREALLOCATION_FULL
};

/* Strings belong to the option set and are NULL where the option was not given. */
struct qcow2_create_options {
    uint32_t version;
    struct qcow2_geometry geometry;
    bool lazy_refcounts;
    uint8_t compression_type;
    unsigned compression_level;          /* 0: not asked for */
    const char *backing_file, *backing_fmt;
    const char *data_file;
    bool data_file_raw;
    enum qcow2_preallocation preallocation;
    uint64_t size;                       /* virtual, rounded up to whole sectors */
};

/* Reads args->opts and refuses what cannot be together or is too large. */
int qcow2_options_read(const struct imgtk_create *args, struct qcow2_create_options *out, struct imgtk_error *err);

/* ---- The header (header_write.c) -------------------------------------------- */

struct qcow2_places {
    uint64_t l1_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
};

/*
 * Header, extensions and backing file name; *out is malloc'ed, *length <= one
 * cluster. The places are still zero: see qcow2_header_place().
 */
int qcow2_header_build(const struct qcow2_create_options *options, uint8_t **out, size_t *length,
                       struct imgtk_error *err);
void qcow2_header_place(uint8_t *header, const struct qcow2_places *places);

/* ---- Host clusters and their refcounts (clusters.c) -------------------------- */

/*
 * Hands out host clusters in ascending order. A refcount block lies before the
 * first cluster that it counts, or after a run that reaches beyond it, and is
 * written as soon as the last cluster that it counts has been taken.
 */
struct qcow2_clusters {
    struct imgtk_storage *file;
    struct qcow2_geometry geometry;
    uint64_t next;                       /* the first host cluster that was not taken */
    uint64_t end;                        /* bytes of the file that are needed so far */
    uint64_t *blocks;                    /* host offsets of the refcount blocks */
    uint64_t block_count, block_room;
    uint8_t *block;                      /* the block being filled, as it will lie on disk */
    uint64_t block_index;
    /* What is left of the host cluster that compressed data were packed into last; hole_end 0: nothing. */
    uint64_t hole, hole_end;
    uint64_t hole_count;                 /* the refcount of that cluster */
};

/* Takes the header's cluster and the refcount table's, which is the one behind it. */
int qcow2_clusters_init(struct qcow2_clusters *clusters, struct imgtk_storage *file,
                        const struct qcow2_geometry *geometry, struct imgtk_error *err);
void qcow2_clusters_free(struct qcow2_clusters *clusters);
/* `count` adjoining clusters, of which the first `bytes` bytes will be used. */
int qcow2_clusters_take(struct qcow2_clusters *clusters, uint64_t count, uint64_t bytes, uint64_t *offset,
                        struct imgtk_error *err);
/* `bytes` < cluster size adjoining bytes for a compressed cluster. */
int qcow2_clusters_take_bytes(struct qcow2_clusters *clusters, uint64_t bytes, uint64_t *offset,
                              struct imgtk_error *err);
/* Clusters that the table of so many blocks takes when it has to leave its first one; 0: it stays there. */
uint64_t qcow2_moved_table_clusters(const struct qcow2_geometry *geometry, uint64_t blocks);
/* Writes the last block and the table, which it moves to the end when it has outgrown its place. */
int qcow2_clusters_finish(struct qcow2_clusters *clusters, struct qcow2_places *places, struct imgtk_error *err);

/* ---- The writer -------------------------------------------------------------- */

struct qcow2_stream;

struct qcow2_writer {
    struct imgtk_storage *file;          /* header and tables */
    struct imgtk_storage *data;          /* guest clusters; == file without an external data file */
    struct imgtk_storage *pipe;          /* when `file` is a temporary one: where it goes at last */
    uint64_t size;                       /* virtual, rounded up to whole sectors */
    uint32_t version;
    struct qcow2_geometry geometry;
    bool has_backing, full, external;
    bool linear;                         /* guest cluster i lies at data_start + i * cluster size, and all are allocated */
    uint64_t data_start;
    bool reads_zero;                     /* what was not written in `data` reads as zero */
    struct imgtk_codec_pool *codecs[2];  /* for even and odd guest clusters; NULL: data are not compressed */
    bool skips_noise;                    /* DEFLATE: slow on what does not shrink, while Zstandard gives up early */
    struct qcow2_stream *stream;         /* not NULL: tables went first, see stream.c; what follows is not used */
    uint8_t *header;
    size_t header_length;
    struct qcow2_places places;
    /* Changed only by who has the turn: */
    struct qcow2_clusters clusters;
    uint64_t l1_entries;
    uint8_t *l1;                         /* a window of the L1 table */
    uint64_t l1_window;                  /* its number */
    uint8_t *l2;                         /* the L2 table being filled */
    uint64_t l2_index, l2_offset;
    uint64_t l2_tables_start;            /* linear: the tables lie side by side from here */
    bool l2_open;
};

/* ---- L1 and L2 tables (tables.c); within the turn ------------------------------ */

int qcow2_tables_init(struct qcow2_writer *writer, struct imgtk_error *err);
void qcow2_tables_free(struct qcow2_writer *writer);
/* Makes the table that maps a guest cluster the one that is filled. Tables are visited in ascending order. */
int qcow2_tables_select(struct qcow2_writer *writer, uint64_t guest_cluster, struct imgtk_error *err);
/* Sets an entry of that table; `bitmap` counts with extended L2 only. */
void qcow2_tables_set(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t entry, uint64_t bitmap);
int qcow2_tables_finish(struct qcow2_writer *writer, struct imgtk_error *err);

/* ---- Pieces of one write (input.c) ------------------------------------------------ */

/* The clusters of one write; the last one of the disk is padded with zeroes. */
struct qcow2_input {
    const uint8_t *buf;
    size_t length, cluster_size;
    uint64_t first;                      /* guest cluster */
    size_t count;
    uint8_t *tail;                       /* the last cluster when it is a partial one, padded; else NULL */
};

int qcow2_input_init(struct qcow2_input *input, const struct qcow2_geometry *geometry, const struct imgtk_write *write,
                     struct imgtk_error *err);
void qcow2_input_free(struct qcow2_input *input);
const uint8_t *qcow2_input_cluster(const struct qcow2_input *input, size_t index); /* one whole cluster */
size_t qcow2_input_bytes(const struct qcow2_input *input, size_t index);           /* without the padding */

/* Bytes that lie together, in memory as on the host. */
struct qcow2_segment {
    const uint8_t *from;
    uint64_t host;
    size_t length;
};

struct qcow2_segments {
    struct qcow2_segment *at;            /* malloc'ed */
    size_t count;
};

int qcow2_segments_init(struct qcow2_segments *segments, size_t room, struct imgtk_error *err);
/* Appends, or lengthens the last segment when both sides continue it. */
void qcow2_segments_add(struct qcow2_segments *segments, const uint8_t *from, uint64_t host, size_t length);
int qcow2_segments_write(const struct qcow2_segments *segments, struct imgtk_storage *file, struct imgtk_error *err);

/* noise.c: whether compressing the cluster would be in vain, from a sample; a wrong yes only costs space. */
bool qcow2_is_noise(const uint8_t *cluster, size_t size);

/* Whether zeroes must be stored as data: the user wants them, or version 2 has no other way to hide a backing file. */
bool qcow2_zeroes_are_data(const struct qcow2_writer *writer);

/* ---- Mapping guest clusters (write.c); within the turn ------------------------------- */

/* Gives cluster `index` of the input a host cluster; bit n of `subclusters`: subcluster n is data (extended L2). */
int qcow2_map_data(struct qcow2_writer *writer, const struct qcow2_input *input, size_t index, uint32_t subclusters,
                   struct qcow2_segments *segments, struct imgtk_error *err);
/* Marks a guest cluster as zero where the backing file would show through; else there is nothing to do. */
int qcow2_map_zero(struct qcow2_writer *writer, uint64_t guest_cluster, struct imgtk_error *err);
/* Which subclusters (without extended L2: bit 0, the cluster) of cluster `index` have to be written. */
uint32_t qcow2_subclusters(const struct qcow2_writer *writer, const struct qcow2_input *input, size_t index);

/* ---- Compression (compress.c) --------------------------------------------------------- */

int qcow2_write_compressed(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err);

/* ---- Preallocation (linear.c) ------------------------------------------------ */

/* Lays all guest clusters out side by side and reserves them as far as was asked. */
int qcow2_preallocate(struct qcow2_writer *writer, const struct imgtk_create *args,
                      const struct qcow2_create_options *options, struct imgtk_error *err);

/* ---- One pass to a pipe (stream.c) ------------------------------------------------- */

/* Whether these options leave the layout to the plan alone. */
bool qcow2_stream_in_order(const struct imgtk_create *args, const struct qcow2_create_options *options);
/* Writes the header and all tables. */
int qcow2_stream_begin(struct qcow2_writer *writer, const struct imgtk_create *args, struct imgtk_error *err);
int qcow2_stream_write(struct qcow2_writer *writer, const struct imgtk_write *write, struct imgtk_error *err);
int qcow2_stream_finish(struct qcow2_writer *writer, struct imgtk_error *err);
void qcow2_stream_free(struct qcow2_stream *stream);

/* ---- Sizes (measure.c) ------------------------------------------------------------- */

/* What the plan fills. */
struct qcow2_planned {
    uint64_t clusters, tables;
    uint64_t end; /* of the last run, bytes of the disk */
};
/* file_size.c. `planned` counts where nothing is preallocated. */
int qcow2_measure_file(const struct imgtk_create *args, const struct qcow2_create_options *options,
                       const struct qcow2_planned *planned, struct imgtk_measure *out, struct imgtk_error *err);

/* Clusters that refcount blocks and table take at the least, when everything else takes `clusters`. */
struct qcow2_refcount_clusters { uint64_t blocks, table; };
struct qcow2_refcount_clusters qcow2_refcount_clusters(const struct qcow2_geometry *geometry, uint64_t clusters);
/* `clusters` and what their refcounts take where the table is written last and may have to move. */
uint64_t qcow2_written_with_refcounts(const struct qcow2_geometry *geometry, uint64_t clusters);

#endif
