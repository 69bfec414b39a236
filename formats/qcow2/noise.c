/*
 * Telling at a glance what is compressed or encrypted already. A compressor needs as long for such a cluster as for any
 * other and saves nothing; on the disk of an operating system that is a twentieth of all its time.
 */
#include <string.h>

#include "writer.h"

enum { SAMPLES = 4096, VALUES = 256, PAGE = 4096, PROBE = 8 };

/* The sum of the squared counts of SAMPLES random bytes, and how far it may be off: six times its deviation, or so. */
static const uint32_t expected = SAMPLES + SAMPLES * (SAMPLES - 1) / VALUES, low_percent = 97, high_percent = 108;

/* Bytes from all over the cluster, and from all places within a record of a power of two. */
static uint32_t sum_of_squares(const uint8_t *cluster, size_t size)
{
    uint16_t counts[VALUES] = { 0 };
    size_t step = size / SAMPLES;
    for (size_t i = 0; i < SAMPLES; i++)
        counts[cluster[i * step + i % step]]++;
    uint32_t sum = 0;
    for (size_t i = 0; i < VALUES; i++)
        sum += (uint32_t)counts[i] * counts[i];
    return sum;
}

/* Noise that repeats itself is no noise. */
static bool pages_repeat(const uint8_t *cluster, size_t size)
{
    for (size_t at = PAGE; at < size; at += PAGE)
        if (memcmp(cluster, cluster + at, PROBE) == 0)
            return true;
    return false;
}

bool qcow2_is_noise(const uint8_t *cluster, size_t size)
{
    if (size < SAMPLES)
        return false;
    uint64_t sum = (uint64_t)sum_of_squares(cluster, size) * 100;
    return sum >= (uint64_t)expected * low_percent && sum <= (uint64_t)expected * high_percent &&
           !pages_repeat(cluster, size);
}
