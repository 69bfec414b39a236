/*
 * The VHD file as it lies on disk: offsets of fields (all big-endian), their
 * values, and the limits that this driver puts on what a file may claim.
 * Sections are those of Microsoft's "Virtual Hard Disk Image Format
 * Specification", version 1.0 (2006).
 */
#ifndef IMGTK_VPC_LAYOUT_H
#define IMGTK_VPC_LAYOUT_H

#include <stdint.h>

#define VPC_SECTOR 512u

/* ---- "Hard Disk Footer Format" ------------------------------------------- */

#define VPC_FOOTER_SIZE 512u
#define VPC_OLD_FOOTER_SIZE 511u /* Virtual PC before 2004 */
#define VPC_FOOTER_COOKIE "conectix"

enum {
    VPC_FOOTER_AT_COOKIE = 0,           /* 8 */
    VPC_FOOTER_AT_FEATURES = 8,         /* 4 */
    VPC_FOOTER_AT_VERSION = 12,         /* 4 */
    VPC_FOOTER_AT_DATA_OFFSET = 16,     /* 8, of the dynamic header */
    VPC_FOOTER_AT_TIMESTAMP = 24,       /* 4, seconds since 2000-01-01 UTC */
    VPC_FOOTER_AT_CREATOR = 28,         /* 4 */
    VPC_FOOTER_AT_CREATOR_VERSION = 32, /* 4, major and minor of 2 each */
    VPC_FOOTER_AT_CREATOR_OS = 36,      /* 4 */
    VPC_FOOTER_AT_ORIGINAL_SIZE = 40,   /* 8 */
    VPC_FOOTER_AT_CURRENT_SIZE = 48,    /* 8 */
    VPC_FOOTER_AT_CYLINDERS = 56,       /* 2 */
    VPC_FOOTER_AT_HEADS = 58,           /* 1 */
    VPC_FOOTER_AT_SECTORS = 59,         /* 1, per track */
    VPC_FOOTER_AT_TYPE = 60,            /* 4 */
    VPC_FOOTER_AT_CHECKSUM = 64,        /* 4 */
    VPC_FOOTER_AT_UUID = 68,            /* 16 */
    VPC_FOOTER_AT_SAVED_STATE = 84      /* 1 */
};

#define VPC_FEATURES_RESERVED 0x00000002u /* always set */
#define VPC_VERSION 0x00010000u
#define VPC_NO_OFFSET UINT64_MAX
#define VPC_EPOCH 946684800u /* 2000-01-01 in Unix time */

/* ---- "Dynamic Disk Header Format" ---------------------------------------- */

#define VPC_HEADER_SIZE 1024u
#define VPC_HEADER_COOKIE "cxsparse"

enum {
    VPC_HEADER_AT_COOKIE = 0,            /* 8 */
    VPC_HEADER_AT_DATA_OFFSET = 8,       /* 8, unused: all ones */
    VPC_HEADER_AT_TABLE_OFFSET = 16,     /* 8 */
    VPC_HEADER_AT_VERSION = 24,          /* 4 */
    VPC_HEADER_AT_ENTRIES = 28,          /* 4 */
    VPC_HEADER_AT_BLOCK_SIZE = 32,       /* 4, without the sector bitmap */
    VPC_HEADER_AT_CHECKSUM = 36,         /* 4 */
    VPC_HEADER_AT_PARENT_UUID = 40,      /* 16 */
    VPC_HEADER_AT_PARENT_TIMESTAMP = 56, /* 4 */
    VPC_HEADER_AT_PARENT_NAME = 64,      /* 512, UTF-16 */
    VPC_HEADER_AT_LOCATORS = 576         /* 8 of 24 */
};

#define VPC_PARENT_NAME_SIZE 512u
#define VPC_LOCATORS 8u

enum {
    VPC_LOCATOR_AT_PLATFORM = 0, /* 4 */
    VPC_LOCATOR_AT_LENGTH = 8,   /* 4, bytes */
    VPC_LOCATOR_AT_OFFSET = 16,  /* 8, bytes */
    VPC_LOCATOR_SIZE = 24
};

#define VPC_PLATFORM_W2RU 0x57327275u /* relative name, UTF-16LE */
#define VPC_PLATFORM_W2KU 0x57326b75u /* absolute name, UTF-16LE */
#define VPC_PLATFORM_MACX 0x4d616358u /* file URL, UTF-8 */

/* ---- "Block Allocation Table and Data Blocks" ---------------------------- */

#define VPC_UNALLOCATED 0xffffffffu /* other entries: first sector of the block's sector bitmap */
#define VPC_BLOCK_SIZE 0x200000u    /* of images that we write */

/* ---- Limits -------------------------------------------------------------- */

#define VPC_MAX_SIZE (UINT64_C(0xff000000) * VPC_SECTOR) /* 2040 GiB, as Windows and QEMU have it */
#define VPC_MAX_BLOCKS (UINT32_C(1) << 22)               /* what 2040 GiB take with blocks of 512 KiB */
#define VPC_MAX_LOCATOR 8192u                            /* bytes of one parent name */

#endif
