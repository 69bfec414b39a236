/*
 * Sizes. A VHD holds its size twice: in bytes, and as cylinders, heads and
 * sectors, whose product is often smaller. Which one counts depends on the
 * program that made the image.
 */
#include <string.h>

#include "vpc.h"

#define MAX_CYLINDERS 65535u
#define MAX_HEADS 16u
#define MAX_SECTORS 255u
#define MAX_GEOMETRY ((uint64_t)MAX_CYLINDERS * MAX_HEADS * MAX_SECTORS)

static const struct vpc_geometry largest = { MAX_CYLINDERS, MAX_HEADS, MAX_SECTORS };

static uint64_t product(const struct vpc_geometry *geometry)
{
    return (uint64_t)geometry->cylinders * geometry->heads * geometry->sectors;
}

/* The specification's appendix "CHS Calculation". */
static struct vpc_geometry geometry_below(uint64_t sectors)
{
    uint32_t total = (uint32_t)imgtk_min_u64(sectors, MAX_GEOMETRY);
    uint32_t per_track = 17, heads, tracks;
    if (total >= MAX_CYLINDERS * MAX_HEADS * 63) {
        per_track = MAX_SECTORS;
        heads = MAX_HEADS;
    } else {
        heads = (total / per_track + 1023) / 1024;
        heads = heads < 4 ? 4 : heads;
        if (total / per_track >= heads * 1024 || heads > MAX_HEADS) {
            per_track = 31;
            heads = MAX_HEADS;
        }
        if (total / per_track >= heads * 1024) {
            per_track = 63;
            heads = MAX_HEADS;
        }
    }
    tracks = total / per_track;
    return (struct vpc_geometry){ (uint16_t)(tracks / heads), (uint8_t)heads, (uint8_t)per_track };
}

/* The smallest such geometry that holds all sectors; beyond the largest, the largest. */
static struct vpc_geometry geometry_above(uint64_t sectors)
{
    uint64_t wanted = imgtk_min_u64(sectors, MAX_GEOMETRY);
    struct vpc_geometry geometry = { 0, 0, 0 };
    for (uint64_t i = 0; product(&geometry) < wanted; i++)
        geometry = geometry_below(wanted + i);
    return geometry;
}

int vpc_plan_size(uint64_t size, bool exact, struct vpc_geometry *geometry, uint64_t *out, struct imgtk_error *err)
{
    if (size > VPC_MAX_SIZE)
        return imgtk_fail(err, IMGTK_ELIMIT, "size %llu exceeds the largest VHD, %llu bytes (2040 GiB)",
                          (unsigned long long)size, (unsigned long long)VPC_MAX_SIZE);
    uint64_t sectors = imgtk_div_round_up(size, VPC_SECTOR);
    *geometry = exact ? largest : geometry_above(sectors);
    /* The largest geometry stands for "too big for a geometry": readers then take the size in bytes. */
    *out = (product(geometry) == MAX_GEOMETRY ? sectors : product(geometry)) * VPC_SECTOR;
    return 0;
}

/* Programs that round the geometry down and mean the size in bytes; as qemu-img has them. */
static bool creator_means_bytes(const char creator[4])
{
    static const char names[][4] = {
        { 'w', 'i', 'n', ' ' }, /* Hyper-V */
        { 'd', '2', 'v', ' ' }, /* Disk2vhd */
        { 't', 'a', 'p', 0 },   /* XenServer */
        { 'C', 'T', 'X', 'S' }, /* XenConverter */
        { 'q', 'e', 'm', '2' }, /* QEMU with force_size */
        { 'w', 'a', 0, 0 },     /* Azure */
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (memcmp(creator, names[i], 4) == 0)
            return true;
    return false;
}

uint64_t vpc_footer_size(const struct vpc_footer *footer, enum vpc_size_rule rule)
{
    uint64_t by_geometry = product(&footer->geometry);
    if (rule == VPC_SIZE_CHS)
        return by_geometry * VPC_SECTOR;
    if (rule == VPC_SIZE_CURRENT || creator_means_bytes(footer->creator))
        return footer->current_size;
    if (by_geometry == 0 || by_geometry == MAX_GEOMETRY)
        return footer->current_size;
    return by_geometry * VPC_SECTOR;
}
