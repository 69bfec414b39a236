/* What the files of the vmdk driver share. */
#ifndef VMDK_H
#define VMDK_H

#include <stdatomic.h>

#include "codec/codec.h"
#include "imgtk/bytes.h"
#include "imgtk/cache.h"
#include "imgtk/driver.h"
#include "layout.h"

/* ---- Descriptor ----------------------------------------------------------- */

enum vmdk_extent_type { VMDK_TYPE_FLAT, VMDK_TYPE_ZERO, VMDK_TYPE_SPARSE, VMDK_TYPE_COWD, VMDK_TYPE_SESPARSE };

struct vmdk_line {
    enum vmdk_extent_type type;
    const char *type_text;   /* as the descriptor has it */
    const char *name;        /* "" for ZERO */
    uint64_t length, offset; /* bytes; offset: of a flat extent in its file */
};

struct vmdk_descriptor {
    char *text; /* the strings below point into it */
    uint32_t cid, parent_cid;
    bool has_cid;
    const char *create_type; /* "" when missing */
    const char *parent_name; /* NULL: none */
    struct vmdk_line *lines;
    size_t line_count;
};

/* YES: it has the first line that every descriptor should have; MAYBE: what follows that line. */
enum imgtk_probe_result vmdk_descriptor_probe(const uint8_t *bytes, size_t length);
/* Parses `length` bytes, which end at the first NUL if there is one. On failure *out holds nothing. */
int vmdk_descriptor_parse(const uint8_t *bytes, size_t length, struct vmdk_descriptor *out, struct imgtk_error *err);
void vmdk_descriptor_free(struct vmdk_descriptor *descriptor);

struct vmdk_descriptor_source {
    uint32_t cid, parent_cid;
    const char *create_type, *parent_name; /* parent_name NULL: none */
    const char *adapter, *hardware_version, *tools_version;
    uint64_t size; /* bytes, of the image */
    const char *lines; /* the extent lines, each with its newline */
};
/* The text, which the caller frees; NULL: out of memory. */
char *vmdk_descriptor_format(const struct vmdk_descriptor_source *source);

/* ---- Sparse headers ------------------------------------------------------- */

enum vmdk_sparse_format { VMDK_HOSTED, VMDK_COWD, VMDK_SESPARSE };

/* A sparse extent's header, validated against itself and the size of its file. In bytes. */
struct vmdk_sparse {
    enum vmdk_sparse_format format;
    uint64_t capacity;
    uint64_t grain;
    uint32_t gtes_per_gt;
    uint64_t gd_entries;
    uint64_t gd_offset;
    uint64_t rgd_offset;             /* 0: no redundant copy */
    uint64_t overhead;               /* hosted: what the header says of the bytes before the grains; not validated */
    uint64_t first_byte;             /* tables and grains lie at or behind it */
    uint64_t descriptor_offset, descriptor_length; /* 0, 0: none embedded */
    uint64_t tables_offset, tables_length;         /* seSparse */
    uint64_t grains_offset;                        /* seSparse */
    bool compressed, markers, zero_grains, unclean;
    bool tables_at_end;              /* gd_offset is not known: the footer tells */
    bool descriptor_only;            /* a capacity of 0: the embedded descriptor lists what there is */
};

/* Pure functions: `header` holds the named size in bytes, `file_size` bounds every offset. */
int vmdk_hosted_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err);
/* The last three sectors of a file whose header says tables_at_end; *out must be what its header parsed to. */
int vmdk_footer_parse(const uint8_t *sectors, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err);
int vmdk_cowd_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err);
int vmdk_sesparse_parse(const uint8_t *header, uint64_t file_size, struct vmdk_sparse *out, struct imgtk_error *err);
/* Reads the header of `file`, the footer where there is one, and parses them. */
int vmdk_sparse_read(struct imgtk_storage *file, uint64_t file_size, enum vmdk_sparse_format format,
                     struct vmdk_sparse *out, struct imgtk_error *err);

/* ---- An open image -------------------------------------------------------- */

struct vmdk_extent {
    enum vmdk_extent_type type;
    const char *type_text;
    const char *name;
    uint64_t start, length;       /* bytes of the guest's disk */
    uint64_t host_offset;         /* flat */
    struct imgtk_storage *file;   /* NULL: ZERO, or a reference that was not followed */
    bool owns_file;
    uint64_t file_size;
    struct vmdk_sparse sparse;
    /* Where each grain table lies: its first sector, in seSparse its number + 1; 0: none. */
    uint32_t *gd;
    bool gd_redundant;            /* read from the redundant copy, since the first is damaged */
};

struct vmdk_image {
    struct imgtk_storage *file;
    struct vmdk_descriptor descriptor;
    struct vmdk_extent *extents;
    size_t extent_count;
    uint64_t size;
    uint64_t gd_entries;                 /* of all extents, against VMDK_MAX_GD_ENTRIES */
    struct imgtk_cache *pieces;          /* see vmdk_piece_load() */
    struct imgtk_codec_pool *codecs;     /* NULL: nothing is compressed */
    atomic_uint_fast64_t repaired_pieces; /* read from the redundant copy */
    char parent_identity[9];             /* parentCID */
};

static inline bool vmdk_is_sparse(const struct vmdk_extent *extent)
{
    return extent->type >= VMDK_TYPE_SPARSE;
}

/* Fills image->extents from the lines of its descriptor; `self` (or NULL) is the header of the image's own file. */
int vmdk_extents_open(struct vmdk_image *image, const struct imgtk_open *args, const struct vmdk_sparse *self,
                      struct imgtk_error *err);
void vmdk_extents_close(struct vmdk_image *image);
/* The extent that holds a guest offset below the image's size. */
struct vmdk_extent *vmdk_extent_find(struct vmdk_image *image, uint64_t offset);

/* ---- Grain tables --------------------------------------------------------- */

/*
 * A piece: VMDK_PIECE_GRAINS neighbouring entries of a grain table, as host
 * byte offsets, or one of the two values below, which are no valid offset.
 */
#define VMDK_PIECE_GRAINS 512u
#define VMDK_GRAIN_NONE 0u
#define VMDK_GRAIN_ZERO 1u

/* Reads and validates the grain directory, and its redundant copy when the first is damaged. */
int vmdk_gd_load(struct vmdk_image *image, struct vmdk_extent *extent, struct imgtk_error *err);
/* One copy of the directory as extent->gd would hold it, validated; the caller frees *out. */
int vmdk_gd_read(const struct vmdk_extent *extent, bool redundant, uint32_t **out, struct imgtk_error *err);
/* Where a grain table lies in the file, by the directory's entry. */
uint64_t vmdk_gt_offset(const struct vmdk_sparse *sparse, uint32_t gd_entry);
/* Grain tables of an extent; pieces of one table. */
uint32_t vmdk_pieces_per_gt(const struct vmdk_sparse *sparse);

struct vmdk_piece_id {
    uint64_t table; /* index in the directory */
    uint32_t piece; /* within the table */
};
/* Entries (at most VMDK_PIECE_GRAINS) of the table at gt_offset, validated. IMGTK_ECORRUPT names the first bad one. */
int vmdk_piece_read(const struct vmdk_extent *extent, struct vmdk_piece_id id, uint64_t gt_offset, uint64_t *out,
                    struct imgtk_error *err);
/* The cache's loader: context is the image, key comes from the cursor. */
int vmdk_piece_load(void *context, uint64_t key, void *table, struct imgtk_error *err);

/* Walks the grains of one extent and holds the piece it looked at last; init to zero but for image and extent. */
struct vmdk_cursor {
    struct vmdk_image *image;
    struct vmdk_extent *extent;
    const uint64_t *piece;
    uint64_t key;
};
/* The value of a grain, and how many grains from it on are known to have none (1 otherwise). */
int vmdk_cursor_get(struct vmdk_cursor *cursor, uint64_t grain, uint64_t *value, uint64_t *run,
                    struct imgtk_error *err);
void vmdk_cursor_end(struct vmdk_cursor *cursor);

/* ---- Ops ------------------------------------------------------------------ */

int vmdk_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int vmdk_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err);
int vmdk_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);
int vmdk_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);

int vmdk_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int vmdk_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
int vmdk_prepare(void *writer, const struct imgtk_write *write, void **prepared, struct imgtk_error *err);
int vmdk_write_prepared(void *writer, const struct imgtk_write *write, void *prepared, struct imgtk_error *err);
void vmdk_discard(void *writer, void *prepared);
int vmdk_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int vmdk_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
               struct imgtk_error *err);
int vmdk_finish(void *writer, struct imgtk_error *err);
void vmdk_writer_close(void *writer);
int vmdk_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);

#endif
