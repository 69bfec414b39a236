/*
 * The qcow2 file as it lies on disk: offsets of fields (all big-endian), bits
 * and masks, and the limits that this driver puts on what a file may claim.
 * Sections are those of QEMU's docs/interop/qcow2.txt.
 */
#ifndef IMGTK_QCOW2_LAYOUT_H
#define IMGTK_QCOW2_LAYOUT_H

#include <stdint.h>

/* ---- Header ------------------------------------------------------------- */

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* Offsets of the header's fields; the number in the name's comment is the width in bytes. */
enum {
    QCOW2_AT_MAGIC = 0,                     /* 4 */
    QCOW2_AT_VERSION = 4,                   /* 4 */
    QCOW2_AT_BACKING_OFFSET = 8,            /* 8 */
    QCOW2_AT_BACKING_LENGTH = 16,           /* 4 */
    QCOW2_AT_CLUSTER_BITS = 20,             /* 4 */
    QCOW2_AT_SIZE = 24,                     /* 8 */
    QCOW2_AT_CRYPT_METHOD = 32,             /* 4 */
    QCOW2_AT_L1_SIZE = 36,                  /* 4, entries */
    QCOW2_AT_L1_OFFSET = 40,                /* 8 */
    QCOW2_AT_REFCOUNT_TABLE_OFFSET = 48,    /* 8 */
    QCOW2_AT_REFCOUNT_TABLE_CLUSTERS = 56,  /* 4 */
    QCOW2_AT_SNAPSHOT_COUNT = 60,           /* 4 */
    QCOW2_AT_SNAPSHOTS_OFFSET = 64,         /* 8 */
    QCOW2_V2_HEADER_LENGTH = 72,
    /* version 3 only */
    QCOW2_AT_INCOMPATIBLE = 72,             /* 8 */
    QCOW2_AT_COMPATIBLE = 80,               /* 8 */
    QCOW2_AT_AUTOCLEAR = 88,                /* 8 */
    QCOW2_AT_REFCOUNT_ORDER = 96,           /* 4 */
    QCOW2_AT_HEADER_LENGTH = 100,           /* 4 */
    QCOW2_V3_HEADER_LENGTH = 104,
    QCOW2_AT_COMPRESSION_TYPE = 104,        /* 1, and 7 of padding */
    QCOW2_FULL_HEADER_LENGTH = 112
};

enum { QCOW2_CRYPT_NONE = 0, QCOW2_CRYPT_AES = 1, QCOW2_CRYPT_LUKS = 2 };
enum { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 };

#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN (UINT64_C(0x1f))
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)

/* ---- Header extensions: type (4), length (4), data, padding to 8 --------- */

enum { QCOW2_EXTENSION_HEADER = 8 };
#define QCOW2_EXT_END 0x00000000u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857u
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_CRYPTO 0x0537be77u
#define QCOW2_EXT_DATA_FILE 0x44415441u

/* "Feature name table": entries of type (1), bit (1), name padded with NUL. */
enum { QCOW2_FEATURE_ENTRY = 48, QCOW2_FEATURE_NAME_AT = 2, QCOW2_FEATURE_NAME_LENGTH = 46 };
enum { QCOW2_FEATURE_INCOMPATIBLE = 0, QCOW2_FEATURE_COMPATIBLE = 1, QCOW2_FEATURE_AUTOCLEAR = 2 };

/* "Bitmaps extension": the extension's data, then one directory entry. */
enum {
    QCOW2_BITMAPS_AT_COUNT = 0,             /* 4 */
    QCOW2_BITMAPS_AT_DIRECTORY_SIZE = 8,    /* 8 */
    QCOW2_BITMAPS_AT_DIRECTORY_OFFSET = 16, /* 8 */
    QCOW2_BITMAPS_LENGTH = 24
};
enum {
    QCOW2_BITMAP_AT_TABLE_OFFSET = 0,       /* 8 */
    QCOW2_BITMAP_AT_TABLE_SIZE = 8,         /* 4, entries */
    QCOW2_BITMAP_AT_FLAGS = 12,             /* 4 */
    QCOW2_BITMAP_AT_TYPE = 16,              /* 1 */
    QCOW2_BITMAP_AT_GRANULARITY_BITS = 17,  /* 1 */
    QCOW2_BITMAP_AT_NAME_LENGTH = 18,       /* 2 */
    QCOW2_BITMAP_AT_EXTRA_LENGTH = 20,      /* 4 */
    QCOW2_BITMAP_ENTRY = 24                 /* then extra data, name, padding to 8 */
};
enum { QCOW2_BITMAP_IN_USE = 1u << 0, QCOW2_BITMAP_AUTO = 1u << 1, QCOW2_BITMAP_EXTRA_COMPATIBLE = 1u << 2 };
#define QCOW2_BITMAP_RESERVED (~7u)
enum { QCOW2_BITMAP_DIRTY_TRACKING = 1 }; /* the type */
#define QCOW2_BITMAP_TABLE_OFFSET_MASK UINT64_C(0x00fffffffffffe00)

/* ---- Tables ------------------------------------------------------------- */

#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)  /* of L1 and plain L2 entries */
#define QCOW2_COPIED (UINT64_C(1) << 63)                /* the refcount is exactly one */
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO (UINT64_C(1) << 0)                   /* version 3, plain entries, not with extended L2 */
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)
#define QCOW2_REFCOUNT_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFCOUNT_RESERVED UINT64_C(0x1ff)

/* Compressed entries: bits 0 to x-1 are the host offset, x to 61 the further 512-byte sectors; x = 62 - (cluster_bits - 8). */
enum { QCOW2_COMPRESSED_SECTOR = 512 };

/* Extended L2: a second word; bit n: subcluster n is allocated, bit 32 + n: it reads as zeroes. */
enum { QCOW2_SUBCLUSTERS = 32, QCOW2_SUBCLUSTER_BITS = 5 };
enum { QCOW2_L2_ENTRY = 8, QCOW2_EXTENDED_L2_ENTRY = 16 };

/* ---- Snapshots: entries begin at multiples of 8 --------------------------- */

enum {
    QCOW2_SNAPSHOT_AT_L1_OFFSET = 0,        /* 8 */
    QCOW2_SNAPSHOT_AT_L1_SIZE = 8,          /* 4, entries */
    QCOW2_SNAPSHOT_AT_ID_LENGTH = 12,       /* 2 */
    QCOW2_SNAPSHOT_AT_NAME_LENGTH = 14,     /* 2 */
    QCOW2_SNAPSHOT_AT_DATE_SEC = 16,        /* 4 */
    QCOW2_SNAPSHOT_AT_DATE_NSEC = 20,       /* 4 */
    QCOW2_SNAPSHOT_AT_VM_CLOCK_NSEC = 24,   /* 8 */
    QCOW2_SNAPSHOT_AT_VM_STATE_SIZE = 32,   /* 4 */
    QCOW2_SNAPSHOT_AT_EXTRA_LENGTH = 36,    /* 4 */
    QCOW2_SNAPSHOT_ENTRY = 40,              /* then extra data, id, name, padding to 8 */
    QCOW2_SNAPSHOT_MIN_EXTRA = 16,          /* bytes of extra data, from version 3 on */
    /* within the extra data */
    QCOW2_SNAPSHOT_EXTRA_VM_STATE_SIZE = 0, /* 8 */
    QCOW2_SNAPSHOT_EXTRA_DISK_SIZE = 8,     /* 8 */
    QCOW2_SNAPSHOT_EXTRA_ICOUNT = 16,       /* 8 */
    QCOW2_SNAPSHOT_EXTRA_LENGTH = 24
};

/* ---- Limits ------------------------------------------------------------- */

enum { QCOW2_MIN_CLUSTER_BITS = 9, QCOW2_MAX_CLUSTER_BITS = 21, QCOW2_MIN_EXTENDED_CLUSTER_BITS = 14 };
enum { QCOW2_MAX_REFCOUNT_ORDER = 6 };
enum { QCOW2_MAX_NAME = 1023 };                          /* backing and data file names, bytes */
#define QCOW2_MAX_L1_BYTES (UINT64_C(32) << 20)
#define QCOW2_MAX_REFCOUNT_TABLE_BYTES (UINT64_C(8) << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOTS_BYTES (UINT64_C(64) << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024u
#define QCOW2_MAX_BITMAPS 65535u
#define QCOW2_MAX_BITMAP_DIRECTORY_BYTES (UINT64_C(64) << 20)
#define QCOW2_MAX_BITMAP_NAME 1023u
#define QCOW2_MAX_BITMAP_TABLE_ENTRIES 0x8000000u
#define QCOW2_MIN_BITMAP_GRANULARITY_BITS 9u
#define QCOW2_MAX_BITMAP_GRANULARITY_BITS 31u
#define QCOW2_MAX_EXTENSION 65536u                       /* bytes of one extension that is read */
#define QCOW2_MAX_SIZE INT64_MAX                         /* virtual size, bytes */
enum { QCOW2_MAX_EXTENSIONS = 4096 };

#endif
