#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { USE_BITS = QCOW2_TALLY_USE_BITS, USE_MASK = QCOW2_TALLY_USE_MASK, NARROW_MAX = UINT8_MAX >> USE_BITS };
#define WIDE_MAX (UINT32_MAX >> USE_BITS)
#define MAX_CLUSTERS (UINT64_C(1) << 30)

int qcow2_tally_open(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err)
{
    *tally = (struct qcow2_tally){ .clusters = clusters };
    if (clusters > MAX_CLUSTERS)
        return imgtk_fail(err, IMGTK_ELIMIT, "a file of %" PRIu64 " clusters is above the limit of %" PRIu64, clusters,
                          MAX_CLUSTERS);
    tally->counts = calloc((size_t)clusters, 1);
    return tally->counts ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts of %" PRIu64 " clusters", clusters);
}

void qcow2_tally_close(struct qcow2_tally *tally)
{
    free(tally->counts);
    tally->counts = NULL;
}

int qcow2_tally_grow(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err)
{
    size_t entry = tally->wide ? sizeof(uint32_t) : sizeof(uint8_t);
    if (clusters <= tally->clusters)
        return 0;
    if (clusters > MAX_CLUSTERS)
        return imgtk_fail(err, IMGTK_ELIMIT, "a file of %" PRIu64 " clusters is above the limit of %" PRIu64, clusters,
                          MAX_CLUSTERS);
    uint8_t *counts = realloc(tally->counts, (size_t)clusters * entry);
    if (!counts)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts of %" PRIu64 " clusters", clusters);
    memset(counts + (size_t)tally->clusters * entry, 0, (size_t)(clusters - tally->clusters) * entry);
    tally->counts = counts;
    tally->clusters = clusters;
    return 0;
}

static void put(struct qcow2_tally *tally, uint64_t cluster, uint32_t entry)
{
    if (tally->wide)
        ((uint32_t *)tally->counts)[cluster] = entry;
    else
        ((uint8_t *)tally->counts)[cluster] = (uint8_t)entry;
}

static int widen(struct qcow2_tally *tally, struct imgtk_error *err)
{
    uint32_t *wide = malloc((size_t)tally->clusters * sizeof(*wide));
    if (!wide)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts of %" PRIu64 " clusters", tally->clusters);
    for (uint64_t i = 0; i < tally->clusters; i++)
        wide[i] = qcow2_tally_entry(tally, i);
    free(tally->counts);
    tally->counts = wide;
    tally->wide = true;
    return 0;
}

static enum qcow2_use combine(uint32_t count, enum qcow2_use before, enum qcow2_use use)
{
    if (count == 0)
        return use;
    return before != use || use == QCOW2_USE_ALONE ? QCOW2_USE_CLASH : use;
}

int qcow2_tally_add(struct qcow2_tally *tally, uint64_t cluster, enum qcow2_use use, struct imgtk_error *err)
{
    uint32_t entry = qcow2_tally_entry(tally, cluster), count = entry >> USE_BITS;
    if (!tally->wide && count == NARROW_MAX) {
        int status = widen(tally, err);
        if (status != 0)
            return status;
    }
    use = combine(count, entry & USE_MASK, use);
    put(tally, cluster, (count < WIDE_MAX ? count + 1 : count) << USE_BITS | (uint32_t)use);
    return 0;
}

void qcow2_tally_subtract(struct qcow2_tally *tally, uint64_t cluster)
{
    uint32_t entry = qcow2_tally_entry(tally, cluster);
    if (entry >> USE_BITS > 0)
        put(tally, cluster, entry - (1u << USE_BITS));
}
