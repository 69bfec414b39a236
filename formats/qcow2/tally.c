#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MAX_CLUSTERS (UINT64_C(1) << 30)
#define MAX_COUNT (UINT32_MAX >> QCOW2_TALLY_USE_BITS)
enum { LOCKS = 64 };

/* Of page n: lock n % LOCKS. Leaves: nothing else is locked while one is held. */
struct qcow2_tally_locks {
    pthread_mutex_t locks[LOCKS];
};

/* ---- Room ------------------------------------------------------------------- */

static uint64_t pages_for(uint64_t clusters)
{
    return imgtk_div_round_up(clusters, QCOW2_TALLY_PAGE);
}

int qcow2_tally_open(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err)
{
    *tally = (struct qcow2_tally){ .locks = malloc(sizeof(*tally->locks)) };
    if (!tally->locks)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts");
    for (int i = 0; i < LOCKS; i++)
        pthread_mutex_init(&tally->locks->locks[i], NULL);
    return qcow2_tally_grow(tally, clusters, err);
}

void qcow2_tally_close(struct qcow2_tally *tally)
{
    for (uint64_t i = 0; i < pages_for(tally->clusters); i++)
        free(tally->pages[i].entries);
    for (int i = 0; i < LOCKS && tally->locks; i++)
        pthread_mutex_destroy(&tally->locks->locks[i]);
    free(tally->pages);
    free(tally->locks);
    *tally = (struct qcow2_tally){ 0 };
}

int qcow2_tally_grow(struct qcow2_tally *tally, uint64_t clusters, struct imgtk_error *err)
{
    uint64_t before = pages_for(tally->clusters), after = pages_for(clusters);
    if (clusters <= tally->clusters)
        return 0;
    if (clusters > MAX_CLUSTERS)
        return imgtk_fail(err, IMGTK_ELIMIT, "a file of %" PRIu64 " clusters is above the limit of %" PRIu64, clusters,
                          MAX_CLUSTERS);
    struct qcow2_tally_page *pages = realloc(tally->pages, (size_t)after * sizeof(*pages));
    if (!pages)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts of %" PRIu64 " clusters", clusters);
    for (uint64_t i = before; i < after; i++)
        pages[i] = (struct qcow2_tally_page){ NULL, QCOW2_TALLY_MIN_ORDER };
    tally->pages = pages;
    tally->clusters = clusters;
    return 0;
}

/* ---- Entries ------------------------------------------------------------------ */

static void put(struct qcow2_tally_page *page, uint64_t at, uint32_t entry)
{
    uint8_t *byte;
    switch (page->order) {
    case 2:
        byte = (uint8_t *)page->entries + at / 2;
        *byte = (uint8_t)((*byte & (0xf0u >> (at % 2 * 4))) | entry << (at % 2 * 4));
        break;
    case 3: ((uint8_t *)page->entries)[at] = (uint8_t)entry; break;
    case 4: ((uint16_t *)page->entries)[at] = (uint16_t)entry; break;
    default: ((uint32_t *)page->entries)[at] = entry; break;
    }
}

static uint32_t max_count(const struct qcow2_tally_page *page)
{
    return MAX_COUNT >> (32 - (1u << page->order));
}

static int make_page(struct qcow2_tally_page *page, unsigned order, struct imgtk_error *err)
{
    page->order = order;
    page->entries = calloc(1, (size_t)QCOW2_TALLY_PAGE << order >> 3);
    return page->entries ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory for counts of clusters");
}

static int widen(struct qcow2_tally *tally, uint64_t first, struct imgtk_error *err)
{
    struct qcow2_tally_page *page = &tally->pages[first >> QCOW2_TALLY_PAGE_BITS], wide;
    int status = make_page(&wide, page->order + 1, err);
    for (uint64_t i = 0; i < QCOW2_TALLY_PAGE && status == 0; i++)
        put(&wide, i, qcow2_tally_entry(tally, first + i));
    if (status != 0)
        return status;
    free(page->entries);
    *page = wide;
    return 0;
}

static enum qcow2_use combine(uint32_t count, enum qcow2_use before, enum qcow2_use use)
{
    if (count == 0)
        return use;
    return before != use || use == QCOW2_USE_ALONE ? QCOW2_USE_CLASH : use;
}

/* The page is there, and locked. */
static int add_one(struct qcow2_tally *tally, uint64_t cluster, struct qcow2_references what, struct imgtk_error *err)
{
    struct qcow2_tally_page *page = &tally->pages[cluster >> QCOW2_TALLY_PAGE_BITS];
    uint32_t entry = qcow2_tally_entry(tally, cluster), count = entry >> QCOW2_TALLY_USE_BITS;
    uint32_t sum = what.times < MAX_COUNT - count ? count + what.times : MAX_COUNT;
    while (sum > max_count(page)) {
        int status = widen(tally, cluster - cluster % QCOW2_TALLY_PAGE, err);
        if (status != 0)
            return status;
    }
    enum qcow2_use use = combine(count, (enum qcow2_use)(entry & QCOW2_TALLY_USE_MASK), what.use);
    put(page, cluster % QCOW2_TALLY_PAGE, sum << QCOW2_TALLY_USE_BITS | (uint32_t)use);
    return 0;
}

/* [first, end) is within one page. */
static int add_in_page(struct qcow2_tally *tally, uint64_t first, uint64_t end, struct qcow2_references what,
                       struct imgtk_error *err)
{
    uint64_t index = first >> QCOW2_TALLY_PAGE_BITS;
    struct qcow2_tally_page *page = &tally->pages[index];
    pthread_mutex_t *lock = &tally->locks->locks[index % LOCKS];
    pthread_mutex_lock(lock);
    bool fresh = !page->entries;
    int status = fresh ? make_page(page, QCOW2_TALLY_MIN_ORDER, err) : 0;
    bool whole = fresh && end - first == QCOW2_TALLY_PAGE; /* as in most of a disk that is written in order */
    if (status == 0 && whole && what.times == 1) {
        memset(page->entries, 0x11 * (1 << QCOW2_TALLY_USE_BITS | (int)what.use), QCOW2_TALLY_PAGE / 2);
        first = end;
    }
    for (uint64_t i = first; i < end && status == 0; i++)
        status = add_one(tally, i, what, err);
    pthread_mutex_unlock(lock);
    return status;
}

int qcow2_tally_add(struct qcow2_tally *tally, uint64_t first, uint64_t count, enum qcow2_use use,
                    struct imgtk_error *err)
{
    return qcow2_tally_add_references(tally, first, count, (struct qcow2_references){ use, 1 }, err);
}

int qcow2_tally_add_references(struct qcow2_tally *tally, uint64_t first, uint64_t count, struct qcow2_references what,
                               struct imgtk_error *err)
{
    uint64_t end = first + count;
    int status = 0;
    while (first < end && status == 0) {
        uint64_t next = imgtk_min_u64(end, (first / QCOW2_TALLY_PAGE + 1) * QCOW2_TALLY_PAGE);
        status = add_in_page(tally, first, next, what, err);
        first = next;
    }
    return status;
}

void qcow2_tally_subtract(struct qcow2_tally *tally, uint64_t cluster)
{
    uint32_t entry = qcow2_tally_entry(tally, cluster);
    if (entry >> QCOW2_TALLY_USE_BITS > 0)
        put(&tally->pages[cluster >> QCOW2_TALLY_PAGE_BITS], cluster % QCOW2_TALLY_PAGE, entry - (1u << QCOW2_TALLY_USE_BITS));
}
