/*
 * VMDK on disk. "VDF" is VMware's "Virtual Disk Format" specification
 * (versions 1.1 and 5.0) with its section; COWD and seSparse are described in
 * docs/formats/vmdk.md. All numbers are little-endian.
 */
#ifndef VMDK_LAYOUT_H
#define VMDK_LAYOUT_H

#include <stdint.h>

#define VMDK_SECTOR 512u

/* ---- Hosted sparse extent: VDF, "Hosted Sparse Extents" ------------------ */

#define VMDK_HOSTED_MAGIC 0x564d444bu /* "KDMV" in the file */
#define VMDK_HOSTED_HEADER_SIZE 512u
#define VMDK_HOSTED_MAX_VERSION 3u

enum {
    VMDK_H_MAGIC = 0,
    VMDK_H_VERSION = 4,
    VMDK_H_FLAGS = 8,
    VMDK_H_CAPACITY = 12,
    VMDK_H_GRAIN_SIZE = 20,
    VMDK_H_DESCRIPTOR_OFFSET = 28,
    VMDK_H_DESCRIPTOR_SIZE = 36,
    VMDK_H_GTES_PER_GT = 44,
    VMDK_H_RGD_OFFSET = 48,
    VMDK_H_GD_OFFSET = 56,
    VMDK_H_OVERHEAD = 64,
    VMDK_H_UNCLEAN = 72,
    VMDK_H_NEWLINES = 73, /* "\n \r\n": shows a transfer that changed line ends */
    VMDK_H_COMPRESSION = 77,
    VMDK_H_END = 79
};
_Static_assert(VMDK_H_END <= VMDK_HOSTED_HEADER_SIZE, "the fields lie in the first sector");

enum {
    VMDK_FLAG_NEWLINES = 1u << 0,
    VMDK_FLAG_REDUNDANT = 1u << 1,
    VMDK_FLAG_ZERO_GRAINS = 1u << 2, /* a grain table entry of 1 is a grain of zeroes */
    VMDK_FLAG_COMPRESSED = 1u << 16,
    VMDK_FLAG_MARKERS = 1u << 17
};
/* A reader may ignore the lower half; a bit in the upper half changes how data are found. */
#define VMDK_FLAGS_INCOMPATIBLE 0xffff0000u

#define VMDK_COMPRESSION_DEFLATE 1u
#define VMDK_GD_AT_END UINT64_MAX
#define VMDK_GTE_ZERO 1u

/* ---- Markers of a compressed extent: VDF, "Stream-Optimized Compressed Sparse Extents" ---- */

enum { VMDK_M_VALUE = 0, VMDK_M_SIZE = 8, VMDK_M_TYPE = 12, VMDK_M_GRAIN_DATA = 12 };
enum { VMDK_MARKER_EOS = 0, VMDK_MARKER_GT = 1, VMDK_MARKER_GD = 2, VMDK_MARKER_FOOTER = 3 };

/* ---- COWD, the sparse extent of ESX Server: VDF, "ESX Server Sparse Extents" ---- */

#define VMDK_COWD_MAGIC 0x44574f43u /* "COWD" in the file */
#define VMDK_COWD_HEADER_SIZE 2048u
#define VMDK_COWD_GTES_PER_GT 4096u

enum {
    VMDK_C_VERSION = 4,
    VMDK_C_FLAGS = 8,
    VMDK_C_CAPACITY = 12,
    VMDK_C_GRAIN_SIZE = 16,
    VMDK_C_GD_OFFSET = 20,
    VMDK_C_GD_ENTRIES = 24,
    VMDK_C_END = 32
};
_Static_assert(VMDK_C_END <= VMDK_COWD_HEADER_SIZE, "the fields lie in the header");

/* ---- seSparse ("space efficient", ESXi 5.1 and later) -------------------- */

#define VMDK_SE_MAGIC 0x00000000cafebabeull
#define VMDK_SE_VOLATILE_MAGIC 0x00000000cafecafeull
#define VMDK_SE_VERSION 0x0000000200000001ull
#define VMDK_SE_HEADER_SIZE 512u
#define VMDK_SE_GRAIN_SECTORS 8u
#define VMDK_SE_GT_SECTORS 64u
#define VMDK_SE_GTES_PER_GT (VMDK_SE_GT_SECTORS * VMDK_SECTOR / 8)

enum {
    VMDK_S_MAGIC = 0,
    VMDK_S_VERSION = 8,
    VMDK_S_CAPACITY = 16,
    VMDK_S_GRAIN_SIZE = 24,
    VMDK_S_GT_SIZE = 32,
    VMDK_S_FLAGS = 40,
    VMDK_S_VOLATILE_OFFSET = 80,
    VMDK_S_VOLATILE_SIZE = 88,
    VMDK_S_GD_OFFSET = 128,
    VMDK_S_GD_SIZE = 136,
    VMDK_S_GT_OFFSET = 144,
    VMDK_S_GT_TOTAL = 152,
    VMDK_S_GRAINS_OFFSET = 192,
    VMDK_S_GRAINS_SIZE = 200,
    VMDK_S_END = 208
};
_Static_assert(VMDK_S_END <= VMDK_SE_HEADER_SIZE, "the fields lie in the first sector");

enum { VMDK_SV_MAGIC = 0, VMDK_SV_REPLAY = 24 };

/* A grain directory entry: this kind in the upper half, the number of the grain table in the lower. */
#define VMDK_SE_GDE_KIND 0xffffffff00000000ull
#define VMDK_SE_GDE_ALLOCATED 0x1000000000000000ull
/* A grain table entry: the kind in the top four bits; the rest is rotated, low part first. */
#define VMDK_SE_GTE_KIND 0xf000000000000000ull
#define VMDK_SE_GTE_UNMAPPED 0x1000000000000000ull
#define VMDK_SE_GTE_ZERO 0x2000000000000000ull
#define VMDK_SE_GTE_ALLOCATED 0x3000000000000000ull

/* ---- Limits --------------------------------------------------------------- */

#define VMDK_MAX_DESCRIPTOR (1u << 20)          /* bytes */
#define VMDK_MAX_LINE 4096u                     /* bytes of a line in a descriptor */
#define VMDK_MAX_EXTENTS 16384u
#define VMDK_MAX_GD_ENTRIES (4u << 20)          /* of all extents of an image together: 16 MiB in memory */
#define VMDK_MAX_SIZE ((uint64_t)INT64_MAX & ~(uint64_t)(VMDK_SECTOR - 1)) /* bytes, of an image */
#define VMDK_MAX_GRAIN (1u << 30)               /* bytes */
#define VMDK_MAX_COMPRESSED_GRAIN (1u << 20)    /* bytes of guest data in a compressed grain */

#define VMDK_CID_NONE 0xffffffffu

#endif
