/* The parts of the VHD driver and what they share. */
#ifndef IMGTK_VPC_H
#define IMGTK_VPC_H

#include "imgtk/bytes.h"
#include "imgtk/cache.h"
#include "imgtk/driver.h"
#include "layout.h"
#include "../common/uuid.h"

/* ---- header.c: bytes to structs and back --------------------------------- */

enum vpc_type { VPC_FIXED = 2, VPC_DYNAMIC = 3, VPC_DIFFERENCING = 4 };

struct vpc_geometry {
    uint16_t cylinders;
    uint8_t heads, sectors;
};

struct vpc_footer {
    uint64_t data_offset; /* of the dynamic header */
    uint32_t timestamp;   /* seconds since 2000 */
    char creator[4], creator_os[4];
    uint32_t creator_version;
    uint64_t original_size, current_size;
    struct vpc_geometry geometry;
    enum vpc_type type;
    uint8_t uuid[UUID_SIZE];
};

struct vpc_locator {
    uint32_t platform, length;
    uint64_t offset;
};

struct vpc_header {
    uint64_t table_offset;
    uint32_t entries;
    uint32_t block_size;
    uint8_t parent_uuid[UUID_SIZE];
    uint8_t parent_name[VPC_PARENT_NAME_SIZE]; /* UTF-16BE */
    struct vpc_locator locators[VPC_LOCATORS];
};

bool vpc_footer_has_cookie(const uint8_t *bytes);
int vpc_footer_parse(const uint8_t bytes[VPC_FOOTER_SIZE], struct vpc_footer *out, struct imgtk_error *err);
void vpc_footer_encode(const struct vpc_footer *footer, uint8_t out[VPC_FOOTER_SIZE]);
int vpc_header_parse(const uint8_t bytes[VPC_HEADER_SIZE], struct vpc_header *out, struct imgtk_error *err);
/* Of a dynamic disk: no parent. */
void vpc_header_encode(const struct vpc_header *header, uint8_t out[VPC_HEADER_SIZE]);

/* ---- geometry.c: sizes ---------------------------------------------------- */

enum vpc_size_rule { VPC_SIZE_BY_CREATOR, VPC_SIZE_CURRENT, VPC_SIZE_CHS };

/* The virtual size that a footer stands for. */
uint64_t vpc_footer_size(const struct vpc_footer *footer, enum vpc_size_rule rule);
/* The geometry and size of a new disk of `size` bytes: that of the geometry, never smaller, unless `exact`. */
int vpc_plan_size(uint64_t size, bool exact, struct vpc_geometry *geometry, uint64_t *out, struct imgtk_error *err);

/* ---- Reading -------------------------------------------------------------- */

struct vpc {
    struct imgtk_storage *file;
    uint64_t file_size;
    uint64_t size;               /* virtual, bytes */
    struct vpc_footer footer;
    bool recovered;              /* the copy at the front is damaged or missing */
    bool no_end_footer;          /* the footer at the end is damaged or missing */
    bool no_references;
    /* dynamic and differencing: */
    struct vpc_header header;
    unsigned block_bits;
    uint32_t bitmap_size;        /* of one block, bytes, whole sectors */
    uint32_t blocks;             /* that the virtual size takes, <= header.entries */
    struct imgtk_cache *bat;     /* slices of the table, as on disk */
    struct imgtk_cache *bitmaps; /* sector bitmaps by their first sector */
    /* differencing: */
    char *parents[IMGTK_BACKING_NAMES + 1];
    char parent_uuid[UUID_TEXT_SIZE];
};

int vpc_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err);
void vpc_close(void *handle);
int vpc_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int vpc_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err);
int vpc_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);
int vpc_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);

/* parent.c */
int vpc_load_parents(struct vpc *vpc, struct imgtk_error *err);
int vpc_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err);
/* UTF-16 of either byte order up to a NUL or the end as UTF-8, to be freed; NULL: out of memory or malformed. */
char *vpc_utf16_to_utf8(const uint8_t *text, size_t size, bool big_endian);

/* bat.c */
int vpc_bat_open(struct vpc *vpc, struct imgtk_error *err);
int vpc_bat_get(struct vpc *vpc, uint32_t block, uint32_t *entry, struct imgtk_error *err);
/* How many blocks from `block` on, at most `limit`, are unallocated. */
int vpc_bat_unallocated(struct vpc *vpc, uint32_t block, uint32_t limit, uint32_t *count, struct imgtk_error *err);
/* The first byte behind the data of a block that disk and file need. */
uint64_t vpc_block_end(const struct vpc *vpc, uint32_t block, uint32_t entry);
/* Whether the block lies within the file and apart from the metadata. */
int vpc_block_validate(const struct vpc *vpc, uint32_t block, uint32_t entry, struct imgtk_error *err);

struct vpc_scan {
    uint32_t allocated, faults;
    uint64_t leaked; /* room for so many blocks, between others or behind them */
    uint64_t end; /* of the last block or of the table */
    uint64_t blocks_end; /* of the last block, with what of it is beyond the end of the disk; 0: there is none */
};
/* `fault` hears of every bad entry and of every pair of blocks that overlap; not 0 stops the scan with that value. */
typedef int (*vpc_fault_fn)(void *context, const struct imgtk_error *fault);
int vpc_bat_scan(struct vpc *vpc, vpc_fault_fn fault, void *context, struct vpc_scan *out, struct imgtk_error *err);

/* map.c: the run of sectors of one kind in a bitmap from `first` on, at most to `end`. */
bool vpc_bitmap_run(const uint8_t *bitmap, uint32_t first, uint32_t end, uint32_t *length);

/* ---- Writing -------------------------------------------------------------- */

extern const struct imgtk_opt vpc_open_opts[];
extern const struct imgtk_opt vpc_create_opts[];

struct vpc_create_options {
    enum vpc_type type;
    bool exact;               /* force_size */
    uint64_t size;            /* what was asked, rounded as the profile wants it */
    uint8_t uuid[UUID_SIZE];
    uint32_t timestamp;       /* seconds since 2000 */
};

enum vpc_size_rule vpc_options_size_rule(const struct imgtk_opts *opts);
int vpc_options_parse(const struct imgtk_create *args, struct vpc_create_options *out, struct imgtk_error *err);

/* Where things lie in a file that we write. */
struct vpc_layout {
    uint64_t size;        /* virtual */
    uint32_t blocks;
    uint32_t table_size;  /* whole sectors */
    uint64_t data_start;  /* of the first block's bitmap */
    uint64_t stride;      /* from block to block */
};

struct vpc_writer {
    struct imgtk_storage *file;
    struct vpc_footer footer;
    struct vpc_layout layout;
    uint64_t source_size; /* what core writes; the disk may be larger */
    bool zeroed;          /* what is not written reads as zeroes */
    bool full;            /* zeroes stay allocated */
    bool device;          /* cannot be cut to size */
    uint64_t device_size;
    bool stream;
    uint8_t *table;       /* dynamic, not streamed: as on disk; an entry is written within its write's turn */
    uint32_t allocated;   /* blocks; guarded by the turns */
    /* stream; guarded by the turns: */
    struct imgtk_plan *plan;
    uint64_t position;    /* bytes that have gone out */
    uint64_t next_block;  /* guest offset of the next block that is due; UINT64_MAX: none */
    uint64_t run_end;     /* of the planned run that it is in */
};

int vpc_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int vpc_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);
int vpc_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
int vpc_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int vpc_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err);
int vpc_finish(void *writer, struct imgtk_error *err);
void vpc_writer_close(void *writer);

/* create.c */
uint64_t vpc_layout_data_end(const struct vpc_layout *layout, uint32_t allocated);
void vpc_encode_header(const struct vpc_layout *layout, uint8_t out[VPC_HEADER_SIZE]);

/* write.c: the sector bitmap for the bytes of one block. */
void vpc_bitmap_fill(uint8_t bitmap[VPC_SECTOR], const uint8_t *data, size_t length, bool full);

/* stream.c: the same operations over a pipe. */
int vpc_stream_begin(struct vpc_writer *vpc, struct imgtk_error *err);
int vpc_stream_write(struct vpc_writer *vpc, const struct imgtk_write *write, struct imgtk_error *err);
int vpc_stream_finish(struct vpc_writer *vpc, struct imgtk_error *err);

#endif
