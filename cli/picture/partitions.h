/*
 * The partitions of a disk, read from its content: an MBR with its logical partitions, or a GPT. Nothing that the
 * content says is trusted: what is not within the disk, or contradicts itself, makes the table a damaged one.
 */
#ifndef IMGTK_CLI_PARTITIONS_H
#define IMGTK_CLI_PARTITIONS_H

#include <imgtk/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARTITIONS_MAX 256             /* in one table; more are not told */
#define LOGICAL_PARTITIONS_MAX 128     /* links of the chain in an extended partition */
#define GPT_TABLE_MAX (1u << 20)       /* bytes of a GPT's entries; the usual table has 16 KiB */
#define PARTITION_NAME_SIZE (36 * 3 + 1) /* 36 units of UTF-16, as UTF-8 with its NUL */

struct partition {
    unsigned number;    /* as the operating system counts: logical ones from 5 */
    uint64_t start, length;
    const char *type;   /* "EFI System"; "" for those that are not well known */
    char name[PARTITION_NAME_SIZE]; /* valid UTF-8, any characters; "" when there is none */
};

enum partition_scheme { PARTITION_SCHEME_NONE, PARTITION_SCHEME_MBR, PARTITION_SCHEME_GPT };

struct partition_table {
    enum partition_scheme scheme;
    bool from_backup;   /* GPT: the first copy is damaged */
    bool truncated;     /* there are more than PARTITIONS_MAX */
    size_t count;
    struct partition partitions[PARTITIONS_MAX]; /* by start; they do not overlap. No extended ones: what is in them */
};

struct partition_disk {
    uint64_t size;
    /* Reads within the size. */
    int (*read)(void *context, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
    void *context;
};

/* No table at all is PARTITION_SCHEME_NONE. IMGTK_ECORRUPT: the table is damaged; IMGTK_ELIMIT. *out is then empty. */
int partitions_read(const struct partition_disk *disk, struct partition_table *out, struct imgtk_error *err);
/* The same for a disk that is in memory. */
int partitions_parse(const uint8_t *bytes, size_t size, struct partition_table *out, struct imgtk_error *err);

/* The name of a type, "" where it is not well known; type: the 16 bytes of the GUID as they are on disk. */
const char *partition_type_of_mbr(uint8_t type);
const char *partition_type_of_gpt(const uint8_t type[16]);

#endif
