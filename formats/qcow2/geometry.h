/* Sizes that follow from a header, and arithmetic on tables that reader, writer and check share. */
#ifndef IMGTK_QCOW2_GEOMETRY_H
#define IMGTK_QCOW2_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "imgtk/bytes.h"
#include "layout.h"

struct qcow2_geometry {
    unsigned cluster_bits;
    uint64_t cluster_size;      /* bytes */
    bool extended_l2;
    unsigned l2_entry_bytes;    /* 8, or 16 with extended L2 */
    unsigned l2_bits;           /* an L2 table, which is one cluster, has 2^l2_bits entries */
    unsigned subcluster_bits;   /* log2 of the subcluster's bytes; cluster_bits without extended L2 */
    unsigned compressed_shift;  /* of the sector count in a compressed entry */
    unsigned refcount_order;    /* a refcount has 2^refcount_order bits */
    unsigned refcount_block_bits; /* a refcount block, which is one cluster, has 2^refcount_block_bits entries */
};

static inline struct qcow2_geometry qcow2_geometry(unsigned cluster_bits, bool extended_l2, unsigned refcount_order)
{
    struct qcow2_geometry geometry = {
        .cluster_bits = cluster_bits,
        .cluster_size = UINT64_C(1) << cluster_bits,
        .extended_l2 = extended_l2,
        .l2_entry_bytes = extended_l2 ? QCOW2_EXTENDED_L2_ENTRY : QCOW2_L2_ENTRY,
        .l2_bits = cluster_bits - (extended_l2 ? 4 : 3),
        .subcluster_bits = cluster_bits - (extended_l2 ? QCOW2_SUBCLUSTER_BITS : 0),
        .compressed_shift = 62 - (cluster_bits - 8),
        .refcount_order = refcount_order,
        .refcount_block_bits = cluster_bits + 3 - refcount_order,
    };
    return geometry;
}

static inline uint64_t qcow2_clusters(const struct qcow2_geometry *geometry, uint64_t bytes)
{
    return (bytes >> geometry->cluster_bits) + ((bytes & (geometry->cluster_size - 1)) != 0);
}

/* How many L1 entries a disk of `size` bytes needs. */
static inline uint64_t qcow2_l1_entries(const struct qcow2_geometry *geometry, uint64_t size)
{
    unsigned shift = geometry->cluster_bits + geometry->l2_bits;
    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

/* Where the stream of a compressed entry lies; it may end anywhere within `length`. */
struct qcow2_compressed {
    uint64_t offset;
    uint64_t length;
};

static inline struct qcow2_compressed qcow2_compressed(const struct qcow2_geometry *geometry, uint64_t entry)
{
    uint64_t offset_mask = (UINT64_C(1) << geometry->compressed_shift) - 1;
    uint64_t count_mask = (UINT64_C(1) << (geometry->cluster_bits - 8)) - 1;
    uint64_t offset = entry & offset_mask;
    uint64_t sectors = ((entry >> geometry->compressed_shift) & count_mask) + 1;
    return (struct qcow2_compressed){ offset, sectors * QCOW2_COMPRESSED_SECTOR - (offset % QCOW2_COMPRESSED_SECTOR) };
}

/* Entry `index` of a refcount block. */
static inline uint64_t qcow2_refcount_get(const void *block, uint64_t index, unsigned order)
{
    const uint8_t *bytes = (const uint8_t *)block;
    switch (order) {
    case 4: return imgtk_be16(bytes + index * 2);
    case 3: return bytes[index];
    case 5: return imgtk_be32(bytes + index * 4);
    case 6: return imgtk_be64(bytes + index * 8);
    default: {
        /* Narrower than a byte: the lowest bits of the byte come first. */
        unsigned shift = (unsigned)((index << order) & 7);
        return ((unsigned)bytes[(index << order) >> 3] >> shift) & ((1u << (1u << order)) - 1);
    }
    }
}

/* `value` fits the width. */
static inline void qcow2_refcount_put(void *block, uint64_t index, unsigned order, uint64_t value)
{
    uint8_t *bytes = (uint8_t *)block;
    switch (order) {
    case 4: imgtk_put_be16(bytes + index * 2, (uint16_t)value); break;
    case 3: bytes[index] = (uint8_t)value; break;
    case 5: imgtk_put_be32(bytes + index * 4, (uint32_t)value); break;
    case 6: imgtk_put_be64(bytes + index * 8, value); break;
    default: {
        unsigned shift = (unsigned)((index << order) & 7);
        unsigned mask = ((1u << (1u << order)) - 1) << shift;
        uint8_t *byte = bytes + ((index << order) >> 3);
        *byte = (uint8_t)((*byte & ~mask) | ((unsigned)value << shift));
    }
    }
}

/* The greatest value that a refcount of 2^order bits holds. */
static inline uint64_t qcow2_refcount_max(unsigned order)
{
    return order == QCOW2_MAX_REFCOUNT_ORDER ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

#endif
