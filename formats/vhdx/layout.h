/* What VHDX looks like on disk: offsets, limits and identifiers of [MS-VHDX]. All integers are little-endian. */
#ifndef IMGTK_VHDX_LAYOUT_H
#define IMGTK_VHDX_LAYOUT_H

#include <stdint.h>

#define VHDX_KIB UINT64_C(1024)
#define VHDX_MIB (1024 * VHDX_KIB)
#define VHDX_TIB (1024 * 1024 * VHDX_MIB)

/* 2.2 Header Section: five structures in the first MiB. */
#define VHDX_SECTION_SIZE VHDX_MIB
#define VHDX_HEADER_1_OFFSET (64 * VHDX_KIB)
#define VHDX_HEADER_2_OFFSET (128 * VHDX_KIB)
#define VHDX_REGION_1_OFFSET (192 * VHDX_KIB)
#define VHDX_REGION_2_OFFSET (256 * VHDX_KIB)

/* Of every structure with a CRC-32C: signature, then the checksum, which counts as zero in itself. */
enum { VHDX_SIGNATURE = 0, VHDX_CHECKSUM = 4 };

/* 2.2.1 File Type Identifier */
#define VHDX_FILE_SIGNATURE "vhdxfile"
enum { VHDX_FILE_CREATOR = 8, VHDX_FILE_CREATOR_SIZE = 512, VHDX_FILE_ID_SIZE = 520 };

/* 2.2.2 Headers */
#define VHDX_HEADER_SIGNATURE UINT32_C(0x64616568) /* "head" */
enum {
    VHDX_HEADER_SIZE = 4096,
    VHDX_HEADER_SEQUENCE = 8,
    VHDX_HEADER_FILE_WRITE_GUID = 16,
    VHDX_HEADER_DATA_WRITE_GUID = 32,
    VHDX_HEADER_LOG_GUID = 48,
    VHDX_HEADER_LOG_VERSION = 64,
    VHDX_HEADER_VERSION = 66,
    VHDX_HEADER_LOG_LENGTH = 68,
    VHDX_HEADER_LOG_OFFSET = 72,
    VHDX_HEADER_RESERVED = 80, /* to the end; must be zero */
    VHDX_VERSION = 1,
    VHDX_LOG_VERSION = 0
};

/* 2.2.3 Region Tables */
#define VHDX_REGION_SIGNATURE UINT32_C(0x69676572) /* "regi" */
enum {
    VHDX_REGION_TABLE_SIZE = 64 * 1024,
    VHDX_REGION_COUNT = 8,
    VHDX_REGION_RESERVED = 12, /* 4 bytes */
    VHDX_REGION_ENTRIES = 16,
    VHDX_REGION_ENTRY_SIZE = 32,
    VHDX_REGION_ENTRY_OFFSET = 16, /* within an entry, after the GUID */
    VHDX_REGION_ENTRY_LENGTH = 24,
    VHDX_REGION_ENTRY_REQUIRED = 28,
    VHDX_REGION_MAX_ENTRIES = 2047
};

/* 2.3 Log */
#define VHDX_LOG_SIGNATURE UINT32_C(0x65676f6c)      /* "loge" */
#define VHDX_LOG_ZERO_SIGNATURE UINT32_C(0x6f72657a) /* "zero" */
#define VHDX_LOG_DESC_SIGNATURE UINT32_C(0x63736564) /* "desc" */
#define VHDX_LOG_DATA_SIGNATURE UINT32_C(0x61746164) /* "data" */
enum {
    VHDX_LOG_SECTOR = 4096,
    VHDX_LOG_ENTRY_LENGTH = 8,
    VHDX_LOG_TAIL = 12,
    VHDX_LOG_SEQUENCE = 16,
    VHDX_LOG_DESCRIPTOR_COUNT = 24,
    VHDX_LOG_GUID = 32,
    VHDX_LOG_FLUSHED_OFFSET = 48,
    VHDX_LOG_LAST_OFFSET = 56,
    VHDX_LOG_HEADER_SIZE = 64,
    VHDX_LOG_DESCRIPTOR_SIZE = 32,
    VHDX_LOG_DESC_TRAILING = 4,     /* data: the sector's last 4 bytes */
    VHDX_LOG_DESC_LEADING = 8,      /* data: its first 8 bytes; zero: the length */
    VHDX_LOG_DESC_FILE_OFFSET = 16,
    VHDX_LOG_DESC_SEQUENCE = 24,
    VHDX_LOG_LEADING_SIZE = 8,
    VHDX_LOG_TRAILING_SIZE = 4,
    VHDX_LOG_DATA_SEQUENCE_HIGH = 4,
    VHDX_LOG_DATA_SEQUENCE_LOW = 4092
};

/* 2.4, 2.5 Blocks and BAT: the state in the low 3 bits, the offset in whole MiB from bit 20. */
#define VHDX_BAT_STATE_MASK UINT64_C(7)
#define VHDX_BAT_RESERVED UINT64_C(0xffff8)
#define VHDX_BAT_OFFSET_MASK (~UINT64_C(0xfffff))
#define VHDX_CHUNK_SECTORS (UINT64_C(1) << 23) /* that one sector bitmap block describes */
#define VHDX_BITMAP_BLOCK_SIZE VHDX_MIB
enum vhdx_block_state {
    VHDX_BLOCK_NOT_PRESENT = 0,
    VHDX_BLOCK_UNDEFINED = 1,
    VHDX_BLOCK_ZERO = 2,
    VHDX_BLOCK_UNMAPPED = 3,
    VHDX_BLOCK_FULLY_PRESENT = 6,
    VHDX_BLOCK_PARTIALLY_PRESENT = 7
};
enum { VHDX_BAT_ENTRY_SIZE = 8, VHDX_BITMAP_PRESENT = 6 };

/* 2.6.1 Metadata Table */
#define VHDX_METADATA_SIGNATURE "metadata"
enum {
    VHDX_METADATA_TABLE_SIZE = 64 * 1024,
    VHDX_METADATA_COUNT = 10,
    VHDX_METADATA_ENTRIES = 32,
    VHDX_METADATA_ENTRY_SIZE = 32,
    VHDX_METADATA_ENTRY_OFFSET = 16,
    VHDX_METADATA_ENTRY_LENGTH = 20,
    VHDX_METADATA_ENTRY_FLAGS = 24,
    VHDX_METADATA_MAX_ENTRIES = 2047,
    VHDX_METADATA_IS_USER = 1,
    VHDX_METADATA_IS_VIRTUAL_DISK = 2,
    VHDX_METADATA_IS_REQUIRED = 4
};
#define VHDX_METADATA_MAX_ITEM VHDX_MIB

/* 2.6.2 Known metadata items */
enum {
    VHDX_FILE_PARAMETERS_SIZE = 8,
    VHDX_FILE_LEAVE_ALLOCATED = 1,
    VHDX_FILE_HAS_PARENT = 2,
    VHDX_LOCATOR_COUNT = 18,
    VHDX_LOCATOR_ENTRIES = 20,
    VHDX_LOCATOR_ENTRY_SIZE = 12
};
#define VHDX_MIN_BLOCK_SIZE VHDX_MIB
#define VHDX_MAX_BLOCK_SIZE (256 * VHDX_MIB)
#define VHDX_MAX_DISK_SIZE (64 * VHDX_TIB)

/* Ours: no file of a 64 TiB disk is near it, and it bounds what a map of the file's MiB can take. */
#define VHDX_MAX_FILE_SIZE (128 * VHDX_TIB)
/* Ours: writers use logs of 1 MiB, and it bounds the time and memory that a replay can take. */
#define VHDX_MAX_REPLAY (128 * VHDX_MIB)
#define VHDX_MAX_LOG_DESCRIPTORS (128 * 1024)

/* 2.2.3.2, 2.6.2: GUIDs as they lie on disk (the first three fields little-endian). */
#define VHDX_GUID_BAT "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08"
#define VHDX_GUID_METADATA "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"
#define VHDX_GUID_FILE_PARAMETERS "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"
#define VHDX_GUID_DISK_SIZE "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"
#define VHDX_GUID_DISK_ID "\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46"
#define VHDX_GUID_LOGICAL_SECTOR "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"
#define VHDX_GUID_PHYSICAL_SECTOR "\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56"
#define VHDX_GUID_PARENT_LOCATOR "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c"
#define VHDX_GUID_LOCATOR_TYPE "\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13"

#endif
