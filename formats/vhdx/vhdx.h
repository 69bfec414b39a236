/* What the files of the VHDX driver share. */
#ifndef IMGTK_VHDX_H
#define IMGTK_VHDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgtk/cache.h"
#include "imgtk/driver.h"
#include "../common/uuid.h"
#include "layout.h"

/* ---- Checksums, GUIDs, text --------------------------------------------- */

/* CRC-32C of a structure whose own checksum field counts as zero. */
uint32_t vhdx_checksum(const uint8_t *structure, size_t length);

struct vhdx_guid {
    uint8_t bytes[UUID_SIZE]; /* as on disk: the first three fields little-endian */
};
struct vhdx_guid vhdx_guid_at(const void *bytes);
bool vhdx_guid_equal(const struct vhdx_guid *guid, const void *bytes);
bool vhdx_guid_is_zero(const struct vhdx_guid *guid);
/* Lower case, without braces. */
void vhdx_guid_format(const struct vhdx_guid *guid, char out[UUID_TEXT_SIZE]);
/* With or without braces, in either case. */
int vhdx_guid_parse(const char *text, struct vhdx_guid *out, struct imgtk_error *err);
int vhdx_guid_random(struct vhdx_guid *out, struct imgtk_error *err);

/* UTF-8 of UTF-16LE up to its end or the first NUL, to be freed; unpaired surrogates become U+FFFD. NULL: no memory. */
char *vhdx_utf16_to_utf8(const uint8_t *text, size_t bytes);

/* ---- Headers (pure parsers: bytes in, host-endian struct out) ------------ */

struct vhdx_header {
    uint64_t sequence;
    struct vhdx_guid file_write, data_write, log_guid; /* log_guid zero: the log is empty */
    uint64_t log_offset, log_length;
};

/* A current header and how it was chosen. */
struct vhdx_header_choice {
    struct vhdx_header header;
    unsigned number;          /* 1 or 2 */
    unsigned damaged;         /* the other one when it is unusable, else 0 */
};

int vhdx_header_parse(const uint8_t bytes[VHDX_HEADER_SIZE], struct vhdx_header *out, struct imgtk_error *err);
/* Both headers as read: the valid one with the higher sequence number. */
int vhdx_header_choose(const uint8_t first[VHDX_HEADER_SIZE], const uint8_t second[VHDX_HEADER_SIZE],
                       struct vhdx_header_choice *out, struct imgtk_error *err);

struct vhdx_region {
    uint64_t offset, length;
};
struct vhdx_regions {
    struct vhdx_region bat, metadata;
    uint64_t other_length; /* of regions that are not known and not required */
    unsigned damaged; /* 1 or 2: that copy of the table is unusable; 0: none */
};

/* file_size bounds every region; `log` takes part in the check for overlaps. */
struct vhdx_region_limits {
    uint64_t file_size;
    struct vhdx_region log;
};
/* Whether signature and checksum are good: if not, the other copy may be taken. */
int vhdx_regions_verify(const uint8_t table[VHDX_REGION_TABLE_SIZE], struct imgtk_error *err);
int vhdx_regions_parse(const uint8_t table[VHDX_REGION_TABLE_SIZE], const struct vhdx_region_limits *limits,
                       struct vhdx_regions *out, struct imgtk_error *err);

struct vhdx_item {
    uint32_t offset, length; /* offset within the metadata region; length 0: absent or empty */
    bool present;
};
struct vhdx_items {
    struct vhdx_item file_parameters, disk_size, disk_id, logical_sector, physical_sector, parent_locator;
};
int vhdx_metadata_parse_table(const uint8_t table[VHDX_METADATA_TABLE_SIZE], uint64_t region_length,
                              struct vhdx_items *out, struct imgtk_error *err);

struct vhdx_metadata {
    uint32_t block_size, logical_sector, physical_sector;
    bool leave_allocated, has_parent;
    uint64_t disk_size;
    struct vhdx_guid disk_id;
    struct vhdx_item parent_locator;
};
/* Sizes and alignments of the values that were read; leaves nothing for later to doubt. */
int vhdx_metadata_validate(const struct vhdx_metadata *metadata, struct imgtk_error *err);

struct vhdx_parent {
    char *relative_path, *volume_path, *absolute_path; /* with slashes; NULL: not recorded */
    char linkage[UUID_TEXT_SIZE], linkage2[UUID_TEXT_SIZE]; /* the parent's DataWriteGuid is one of them; "": none */
};
int vhdx_parent_parse(const uint8_t *locator, size_t length, struct vhdx_parent *out, struct imgtk_error *err);
void vhdx_parent_free(struct vhdx_parent *parent);

/* ---- Log replay, in memory ----------------------------------------------- */

/* A range of the file that reads otherwise than the file says. */
struct vhdx_patch {
    uint64_t start, end;
    uint64_t source;  /* where in the file its log sector lies (then end - start is 4096); 0: zeroes */
    uint8_t leading[VHDX_LOG_LEADING_SIZE], trailing[VHDX_LOG_TRAILING_SIZE];
};
struct vhdx_overlay {
    struct vhdx_patch *patches; /* ascending, disjoint */
    size_t count;
};

/* Makes disjoint patches of `count` that may overlap; later ones win. Takes `patches`, in failure too. */
int vhdx_overlay_build(struct vhdx_patch *patches, size_t count, struct vhdx_overlay *out, struct imgtk_error *err);
void vhdx_overlay_free(struct vhdx_overlay *overlay);
/* The first patch that ends above offset, or NULL. */
const struct vhdx_patch *vhdx_overlay_find(const struct vhdx_overlay *overlay, uint64_t offset);

struct vhdx_replay {
    struct vhdx_overlay overlay;
    uint64_t file_size; /* after replay, >= the stored size */
};
/* The active sequence of a log that is not empty; nothing is written. */
int vhdx_log_replay(struct imgtk_storage *file, const struct vhdx_header *header, uint64_t file_size,
                    struct vhdx_replay *out, struct imgtk_error *err);

/* ---- An open image -------------------------------------------------------- */

struct vhdx_image {
    struct imgtk_storage *file;
    uint64_t stored_size;       /* of the file */
    uint64_t file_size;         /* once the log is replayed */
    struct vhdx_header_choice header;
    bool replayed;
    struct vhdx_overlay overlay;
    struct vhdx_regions regions;
    struct vhdx_metadata metadata;
    uint64_t block_count;
    uint64_t chunk_ratio;       /* payload blocks per sector bitmap block */
    uint64_t bat_entries;
    struct vhdx_parent parent;
    char *creator;
    struct imgtk_cache *tables; /* slices of the BAT and of sector bitmaps, by file offset; a lock of its own */
};

/* Bytes of the file as they are once the log is replayed. */
int vhdx_file_read(struct vhdx_image *image, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);

/* The slice of a table that was used last, held so that neighbours cost nothing. Zero it, then vhdx_tables_done(). */
#define VHDX_SLICE (64 * VHDX_KIB)
struct vhdx_tables {
    const uint8_t *slice;
    uint64_t offset;
};
int vhdx_table_at(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t offset, const uint8_t **out,
                  struct imgtk_error *err);
void vhdx_tables_done(struct vhdx_image *image, struct vhdx_tables *tables);
int vhdx_bat_entry(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t index, uint64_t *out,
                   struct imgtk_error *err);

/* Guest bytes of the block that lie within the disk: less than a block in the last one. */
uint64_t vhdx_block_length(const struct vhdx_image *image, uint64_t block);
/* Index in the BAT of a payload block, and of the sector bitmap that covers it. */
uint64_t vhdx_bat_payload_index(const struct vhdx_image *image, uint64_t block);
uint64_t vhdx_bat_bitmap_index(const struct vhdx_image *image, uint64_t block);
/* Whether a block of `length` bytes may lie at `host`: in the file, clear of its tables. `what` begins the message. */
int vhdx_block_fits(const struct vhdx_image *image, const char *what, uint64_t number, uint64_t host, uint64_t length,
                    struct imgtk_error *err);

/* What this layer says about a range; host is where it lies in the (replayed) file, for DATA. */
struct vhdx_run {
    uint64_t length;
    enum imgtk_extent_kind kind;
    bool unallocated;
    uint64_t host;
};
/* The run at offset, merged with what follows until `length` is reached. */
int vhdx_map(struct vhdx_image *image, uint64_t offset, uint64_t length, struct vhdx_run *out,
             struct imgtk_error *err);
/* Within a partially present block: how many bytes from `within` on, at most `limit`, are this file's, or are not. */
int vhdx_bitmap_run(struct vhdx_image *image, struct vhdx_tables *tables, uint64_t block, uint64_t within,
                    uint64_t limit, uint64_t *length, bool *present, struct imgtk_error *err);

/* One pass over the BAT: counts, and every entry that is wrong. */
struct vhdx_scan {
    int (*finding)(void *context, const struct imgtk_error *fault); /* not 0 ends the scan with that value */
    void *context;
    bool strict;                    /* for check: tells of reserved bits, which harm nobody who reads, and finds leaks */
    uint64_t allocated, fragmented; /* out: payload blocks */
    uint64_t leaked;                /* out, when strict: room for so many payload blocks that nothing names */
    uint64_t leaked_behind;         /* out, when strict: those of them that lie behind named_end */
    uint64_t named_end;             /* out, when strict: of all that anything names */
    uint64_t end;                   /* out: of the last block in the file */
};
int vhdx_scan(struct vhdx_image *image, struct vhdx_scan *scan, struct imgtk_error *err);

/* ---- Repair (repair.c) ------------------------------------------------------ */

/*
 * Writes into the file what its log says, and empties the log; makes a damaged copy of the header or of the region
 * table good. The image stays as it was for who reads it. An interruption leaves the log as it is until all it says is
 * on disk, and of each pair of copies a good one.
 */
int vhdx_repair(struct vhdx_image *image, struct imgtk_check *check, struct imgtk_error *err);

/* Both headers with a new identifier of the file's writer, which has to change before the file does, and no log. */
int vhdx_headers_renew(struct vhdx_image *image, struct imgtk_error *err);

/* Puts the checksum into a structure that has one. */
void vhdx_seal(uint8_t *structure, size_t length);

/* ---- Writing -------------------------------------------------------------- */

struct vhdx_layout {
    uint64_t size;          /* virtual */
    uint64_t block_size, block_count, chunk_ratio;
    uint64_t log_offset, log_length;
    uint64_t metadata_offset;
    uint64_t bat_offset, bat_length, bat_entries;
    uint64_t data_offset;
    bool fixed;
    bool zero_state;        /* blocks without data are ZERO, not NOT_PRESENT */
};
#define VHDX_METADATA_LENGTH VHDX_MIB
#define VHDX_LOGICAL_SECTOR 512u
#define VHDX_PHYSICAL_SECTOR 4096u
#define VHDX_WRITE_UNIT (64u * 1024u)

extern const struct imgtk_opt vhdx_create_opts[];
int vhdx_layout_from(uint64_t size, const struct imgtk_opts *opts, struct vhdx_layout *out, struct imgtk_error *err);

struct vhdx_identity {
    struct vhdx_guid disk, file_write, data_write;
};
/* From the `uuid` option or SOURCE_DATE_EPOCH, else random. */
int vhdx_identity_from(uint64_t size, const struct imgtk_opts *opts, struct vhdx_identity *out,
                       struct imgtk_error *err);

/* The structures of a new image; every buffer comes zeroed. */
#define VHDX_BUILD_METADATA_SIZE (68 * VHDX_KIB)
void vhdx_build_section(uint8_t *section, const struct vhdx_layout *layout, const struct vhdx_identity *identity);
void vhdx_build_metadata(uint8_t *metadata, const struct vhdx_layout *layout, const struct vhdx_identity *identity);

struct vhdx_writer {
    struct imgtk_storage *file;
    struct vhdx_layout layout;
    struct vhdx_identity identity;
    bool stream;
    bool full;              /* zeroes are to occupy space */
    bool reads_zero;        /* what is not written is zero already */
    /* Where each block lies: its number in the file plus one, 0: nowhere. Changes in turn. NULL: fixed, in order. */
    uint32_t *blocks;
    uint64_t allocated;     /* blocks that have a place; in turn */
    uint64_t position;      /* stream: bytes written so far; in turn */
};

int vhdx_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int vhdx_write(void *handle, const struct imgtk_write *write, struct imgtk_error *err);
int vhdx_place(void *handle, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
               struct imgtk_error *err);
int vhdx_zero(void *handle, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int vhdx_finish(void *handle, struct imgtk_error *err);
void vhdx_writer_close(void *handle);
int vhdx_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);
/* Gives every planned block its number, in order. */
int vhdx_plan_blocks(struct imgtk_plan *plan, const struct vhdx_layout *layout, uint32_t *blocks, uint64_t *count,
                     struct imgtk_error *err);
/* Metadata and BAT; the rest of the two regions is zero already, unless it streams. */
int vhdx_write_tables(struct vhdx_writer *writer, struct imgtk_error *err);

/* ---- Ops in files of their own -------------------------------------------- */

int vhdx_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int vhdx_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err);
int vhdx_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);
int vhdx_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);
int vhdx_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err);

#endif
