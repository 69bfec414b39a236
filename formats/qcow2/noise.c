/*
 * Telling at a glance what is compressed or encrypted already. A compressor needs as long for such a cluster as for any
 * other and saves nothing; on the disk of an operating system that is a twentieth of all its time.
 */
#include <string.h>

#include "writer.h"

enum { SAMPLES = 4096, VALUES = 256, SLOTS = 1024, REPETITIONS = 4 };

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

/*
 * Noise that repeats itself is no noise. Whether eight bytes are looked for again depends on themselves alone, one place
 * in 256 on average, so that a repetition is seen at whatever distance it comes.
 */
static bool repeats(const uint8_t *cluster, size_t size)
{
    uint64_t seen[SLOTS] = { 0 };
    unsigned found = 0;
    for (size_t at = 0; at + sizeof(uint64_t) <= size; at++) {
        uint64_t bytes;
        memcpy(&bytes, cluster + at, sizeof(bytes));
        uint64_t hash = bytes * UINT64_C(0x9e3779b97f4a7c15);
        if (hash >> 56 != 0)
            continue;
        uint64_t *slot = &seen[hash >> 40 & (SLOTS - 1)];
        if (*slot == bytes && ++found == REPETITIONS)
            return true;
        *slot = bytes;
    }
    return false;
}

bool qcow2_is_noise(const uint8_t *cluster, size_t size)
{
    if (size < SAMPLES)
        return false;
    uint64_t sum = (uint64_t)sum_of_squares(cluster, size) * 100;
    return sum >= (uint64_t)expected * low_percent && sum <= (uint64_t)expected * high_percent &&
           !repeats(cluster, size);
}
