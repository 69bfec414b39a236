/* An image while it is being written. */
#ifndef VMDK_WRITER_H
#define VMDK_WRITER_H

#include "options.h"
#include "vmdk.h"

#define VMDK_GRAIN_SIZE 65536u
#define VMDK_GTES 512u
#define VMDK_GT_BYTES (VMDK_GTES * 4)
#define VMDK_GT_COVERAGE ((uint64_t)VMDK_GRAIN_SIZE * VMDK_GTES)
#define VMDK_SPLIT_SIZE ((uint64_t)1 << 31) /* bytes of the disk in an extent of the twoGb subformats */
#define VMDK_DESCRIPTOR_ROOM (20u * VMDK_SECTOR)           /* what VMware's tools reserve; longer texts get more */
#define VMDK_MAX_HOST ((uint64_t)UINT32_MAX * VMDK_SECTOR) /* a grain table entry counts sectors in 32 bits */

/* Where the metadata of a sparse extent lie, in bytes: both directories with all their tables, in front of the data. */
struct vmdk_tables {
    uint64_t gd_entries;
    uint64_t descriptor_bytes; /* reserved behind the header; 0: none is embedded */
    uint64_t rgd_offset, gd_offset;
    uint64_t rgt_offset, gt_offset; /* of the first table of each */
    uint64_t data_offset;
};
/* `descriptor_bytes`: length of the text to embed, 0 for none. */
int vmdk_tables_place(uint64_t length, size_t descriptor_bytes, struct vmdk_tables *out, struct imgtk_error *err);

struct vmdk_header_source {
    uint32_t version, flags;
    uint64_t capacity;     /* bytes */
    uint64_t descriptor_sectors;
    uint64_t rgd_sector, gd_sector, overhead_sectors;
    uint16_t compression;
};
void vmdk_header_format(const struct vmdk_header_source *source, uint8_t out[VMDK_SECTOR]);

struct vmdk_part {
    struct imgtk_storage *file;   /* the image's own, or one from imgtk_reference_create(), which core closes */
    uint64_t start, length;       /* bytes of the disk */
    struct vmdk_tables tables;    /* sparse */
    uint64_t next;                /* sparse: where the next grain goes */
};

/* The one grain table that is being filled; writes come in guest order. Guarded by the turn. */
struct vmdk_window {
    struct vmdk_part *part;       /* NULL: none yet */
    uint64_t table;
    bool changed;
    uint8_t entries[VMDK_GT_BYTES];
};

struct vmdk_stream; /* see stream.c */

struct vmdk_writer {
    struct imgtk_storage *file;
    uint64_t size;                /* bytes of the disk, as the image records it */
    enum vmdk_subformat subformat;
    bool zeroed_grain;
    bool zero_matters;            /* a hole would not read as zeroes, or the user wants zeroes allocated */
    uint32_t zero_flags;          /* IMGTK_ZERO_* */
    char *descriptor;
    struct vmdk_part *parts;      /* not for streamOptimized */
    size_t part_count;
    struct vmdk_window window;
    struct vmdk_stream *stream;   /* streamOptimized */
};

int vmdk_stream_create(struct vmdk_writer *writer, unsigned level, struct imgtk_error *err);
int vmdk_stream_write(struct vmdk_writer *writer, const struct imgtk_write *write, struct imgtk_error *err);
int vmdk_stream_zero(struct vmdk_writer *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn,
                     struct imgtk_error *err);
int vmdk_stream_finish(struct vmdk_writer *writer, struct imgtk_error *err);
void vmdk_stream_free(struct vmdk_stream *stream);

/* Writes the header, both directories and an embedded descriptor (NULL: none) of a sparse part. */
int vmdk_part_finish(struct vmdk_writer *writer, struct vmdk_part *part, const char *descriptor,
                     struct imgtk_error *err);
int vmdk_window_flush(struct vmdk_window *window, struct imgtk_error *err);

#endif
