/*
 * The VDI file as it lies on disk: offsets of fields (all little-endian), and
 * the limits that this driver puts on what a file may claim. There is no
 * published specification: names and meanings are those of VirtualBox's
 * VDICore.h (VDIPREHEADER, VDIHEADER0, VDIHEADER1, VDIHEADER1PLUS).
 */
#ifndef IMGTK_VDI_LAYOUT_H
#define IMGTK_VDI_LAYOUT_H

#include <stdint.h>

#define VDI_SECTOR 512u

/* ---- Preheader, of every version ----------------------------------------- */

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION_MAJOR(version) ((version) >> 16)
#define VDI_VERSION_MINOR(version) ((version) & 0xffffu)
#define VDI_VERSION_1_1 0x00010001u
#define VDI_TEXT "<<< Oracle VM VirtualBox Disk Image >>>\n"

enum {
    VDI_AT_TEXT = 0x00,      /* 64 */
    VDI_AT_SIGNATURE = 0x40, /* 4 */
    VDI_AT_VERSION = 0x44,   /* 4 */
    VDI_PREHEADER_SIZE = 0x48
};

/* ---- Version 0: table and data follow the header directly ------------------ */

enum {
    VDI0_AT_TYPE = 0x48,             /* 4 */
    VDI0_AT_FLAGS = 0x4c,            /* 4 */
    VDI0_AT_COMMENT = 0x50,          /* 256 */
    VDI0_AT_SECTOR_SIZE = 0x15c,     /* 4 */
    VDI0_AT_DISK_SIZE = 0x160,       /* 8 */
    VDI0_AT_BLOCK_SIZE = 0x168,      /* 4 */
    VDI0_AT_BLOCKS = 0x16c,          /* 4 */
    VDI0_AT_BLOCKS_ALLOCATED = 0x170, /* 4 */
    VDI0_AT_UUID = 0x174,            /* 16 */
    VDI0_AT_UUID_MODIFY = 0x184,     /* 16 */
    VDI0_AT_UUID_LINK = 0x194,       /* 16 */
    VDI0_HEADER_END = 0x1a4
};

/* ---- Version 1 ------------------------------------------------------------ */

enum {
    VDI_AT_HEADER_SIZE = 0x48,      /* 4, from here on */
    VDI_AT_TYPE = 0x4c,             /* 4 */
    VDI_AT_FLAGS = 0x50,            /* 4 */
    VDI_AT_COMMENT = 0x54,          /* 256 */
    VDI_AT_TABLE_OFFSET = 0x154,    /* 4 */
    VDI_AT_DATA_OFFSET = 0x158,     /* 4 */
    VDI_AT_SECTOR_SIZE = 0x168,     /* 4, after cylinders, heads and sectors */
    VDI_AT_DISK_SIZE = 0x170,       /* 8 */
    VDI_AT_BLOCK_SIZE = 0x178,      /* 4 */
    VDI_AT_BLOCK_EXTRA = 0x17c,     /* 4, bytes before the data of each block */
    VDI_AT_BLOCKS = 0x180,          /* 4 */
    VDI_AT_BLOCKS_ALLOCATED = 0x184, /* 4 */
    VDI_AT_UUID = 0x188,            /* 16 */
    VDI_AT_UUID_MODIFY = 0x198,     /* 16 */
    VDI_AT_UUID_LINK = 0x1a8,       /* 16, the parent's VDI_AT_UUID */
    VDI_AT_UUID_PARENT_MODIFY = 0x1b8, /* 16 */
    VDI_HEADER_END = 0x1c8,         /* of version 1.0 */
    VDI_AT_LCHS_SECTOR_SIZE = 0x1d4, /* 4, the last field of version 1.1 */
    VDI_HEADER_END_1_1 = 0x1d8
};

#define VDI_HEADER_BYTES 512u /* what we read and write: a whole sector */

/* ---- Block table ----------------------------------------------------------- */

#define VDI_FREE 0xffffffffu /* nothing here: the parent's bytes, or zeroes without one */
#define VDI_ZERO 0xfffffffeu /* zeroes, whatever the parent has */
#define VDI_BLOCK_SIZE 0x100000u /* of images that we write, and the only one that QEMU reads */

/* ---- Limits ----------------------------------------------------------------- */

#define VDI_MAX_BLOCKS 0x1fffff80u /* QEMU's too: just below 512 TiB with blocks of 1 MiB */
#define VDI_MIN_BLOCK_SIZE VDI_SECTOR
#define VDI_MAX_BLOCK_SIZE (64u << 20)
#define VDI_MAX_BLOCK_EXTRA (1u << 20)

#endif
