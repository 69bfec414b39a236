/* The parts of the VDI driver and what they share. */
#ifndef IMGTK_VDI_H
#define IMGTK_VDI_H

#include "../common/uuid.h"
#include "imgtk/bytes.h"
#include "imgtk/cache.h"
#include "imgtk/driver.h"
#include "layout.h"

/* ---- header.c: bytes to structs and back --------------------------------- */

enum vdi_type { VDI_DYNAMIC = 1, VDI_STATIC = 2, VDI_UNDO = 3, VDI_DIFFERENCING = 4 };

struct vdi_header {
    uint32_t version;
    enum vdi_type type;
    uint64_t table_offset, data_offset; /* bytes */
    uint64_t disk_size;                 /* whole sectors */
    uint32_t block_size, block_extra;
    uint32_t blocks, blocks_allocated;
    uint8_t uuid[UUID_SIZE], uuid_modify[UUID_SIZE];        /* in the order of their text */
    uint8_t uuid_link[UUID_SIZE], uuid_parent_modify[UUID_SIZE];
};

bool vdi_has_signature(const uint8_t *bytes, size_t length);
/* Of version 0 or 1; the bytes behind a short file's end are zeroes. */
int vdi_header_parse(const uint8_t bytes[VDI_HEADER_BYTES], struct vdi_header *out, struct imgtk_error *err);
/* Always version 1.1. */
void vdi_header_encode(const struct vdi_header *header, uint8_t out[VDI_HEADER_BYTES]);

/* ---- Reading -------------------------------------------------------------- */

struct vdi {
    struct imgtk_storage *file;
    uint64_t file_size;
    struct vdi_header header;
    uint32_t blocks;           /* that the disk takes, <= header.blocks */
    struct imgtk_cache *table; /* slices, as on disk */
    bool no_references;
    char *parent;              /* from the option "backing"; NULL: not given */
    char parent_uuid[UUID_TEXT_SIZE];
};

int vdi_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err);
void vdi_close(void *handle);
int vdi_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
int vdi_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err);
int vdi_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);
int vdi_check(void *handle, struct imgtk_check *check, struct imgtk_error *err);

/* bat.c: the block table */

static inline bool vdi_is_allocated(uint32_t entry)
{
    return entry < VDI_ZERO;
}

int vdi_table_open(struct vdi *vdi, struct imgtk_error *err);
int vdi_table_get(struct vdi *vdi, uint32_t block, uint32_t *entry, struct imgtk_error *err);
/*
 * How many blocks from `block` on, at most `limit` (> 0), are of one kind:
 * *entry again, or, where it is allocated, one behind the other in the file.
 */
int vdi_table_run(struct vdi *vdi, uint32_t block, uint32_t limit, uint32_t *entry, uint32_t *count,
                  struct imgtk_error *err);
/* Where the data of an allocated block begin. */
uint64_t vdi_block_offset(const struct vdi *vdi, uint32_t entry);
/* Whether what the disk needs of the block lies within the file. */
int vdi_block_validate(const struct vdi *vdi, uint32_t block, uint32_t entry, struct imgtk_error *err);

struct vdi_scan {
    uint32_t allocated;
    uint32_t leaked; /* places in the file that no block has */
    uint64_t end;    /* of the last block or of the headers */
};
/* `fault` hears of every bad entry; not 0 stops the scan with that value. */
typedef int (*vdi_fault_fn)(void *context, const struct imgtk_error *fault);
int vdi_table_scan(struct vdi *vdi, vdi_fault_fn fault, void *context, struct vdi_scan *out, struct imgtk_error *err);

/* ---- Writing -------------------------------------------------------------- */

extern const struct imgtk_opt vdi_open_opts[];
extern const struct imgtk_opt vdi_create_opts[];

/* Type and UUIDs from the options. */
int vdi_options_parse(const struct imgtk_create *args, struct vdi_header *out, struct imgtk_error *err);

#define VDI_SLICE_ENTRIES 16384u
#define VDI_SLICE_SIZE (VDI_SLICE_ENTRIES * 4u)

struct vdi_writer {
    struct imgtk_storage *file;
    struct vdi_header header;
    uint64_t source_size;  /* what core writes; the disk may be larger */
    bool zeroed;           /* what is not written reads as zeroes */
    bool full;             /* zeroes stay allocated */
    bool device;           /* cannot be cut to size */
    bool stream;
    uint8_t **slices;      /* dynamic, not streamed: the table; NULL: all free. Written within the write's turn */
    uint32_t allocated;    /* blocks; guarded by the turns */
    /* stream; guarded by the turns: */
    struct imgtk_plan *plan;
    uint64_t position;     /* bytes that have gone out */
    uint64_t next_block;   /* guest offset of the next block that is due; UINT64_MAX: none */
    uint64_t run_end;      /* of the planned run that it is in */
};

int vdi_create(struct imgtk_create *args, void **writer, struct imgtk_error *err);
int vdi_measure(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);
int vdi_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
int vdi_zero(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
int vdi_place(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
              struct imgtk_error *err);
int vdi_finish(void *writer, struct imgtk_error *err);
void vdi_writer_close(void *writer);

/* create.c */
uint32_t vdi_slice_count(const struct vdi_header *header);
uint64_t vdi_data_end(const struct vdi_header *header, uint32_t allocated);
/* Blocks of the planned runs; plan may be NULL. */
int vdi_count_planned(struct imgtk_plan *plan, uint32_t *out, struct imgtk_error *err);

/* stream.c: the same operations over a pipe. */
int vdi_stream_begin(struct vdi_writer *vdi, struct imgtk_error *err);
int vdi_stream_write(struct vdi_writer *vdi, const struct imgtk_write *write, struct imgtk_error *err);
int vdi_stream_finish(struct vdi_writer *vdi, struct imgtk_error *err);

#endif
