#include "imgtk/cache.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MIN_TABLES = 16, MAX_BUCKETS = 1 << 16 };
enum { ONCE_SHARE = 8 }; /* of the idle tables one in so many, or MIN_TABLES, may be ones that were asked for but once */

enum entry_state { LOADING, LOADED, FAILED };

struct entry {
    struct entry *chain;       /* same bucket; an entry that failed is in none */
    struct entry *newer, *older; /* an idle list; only while users is 0 */
    uint64_t key;
    bool again;                /* it was asked for a second time */
    size_t users;              /* holders, and threads that wait for the load */
    enum entry_state state;
    alignas(64) unsigned char table[]; /* its own cache lines: tables are scanned with vectors */
};

struct idle_list {
    struct entry *newest, *oldest;
    size_t count;
};

/*
 * Idle tables that were asked for but once have a list, and a bound, of their own: whoever goes over all tables of an
 * image, and comes back to none, uses a little memory again and again, and leaves alone what others come back to.
 */
struct imgtk_cache {
    pthread_mutex_t lock;      /* a leaf: nothing else is locked and no load runs while it is held */
    pthread_cond_t loaded;     /* some load ended */
    imgtk_cache_load_fn load;
    void *context;
    size_t table_size;
    size_t capacity, max_once; /* idle tables that are kept: all of them, those in the first list */
    struct idle_list idle[2];  /* by entry->again */
    size_t bucket_mask;
    struct entry *buckets[];
};

static size_t bucket_count_for(size_t capacity)
{
    size_t count = MIN_TABLES;
    while (count < capacity && count < MAX_BUCKETS)
        count *= 2;
    return count;
}

int imgtk_cache_new(size_t table_size, size_t max_bytes, imgtk_cache_load_fn load, void *context,
                    struct imgtk_cache **out, struct imgtk_error *err)
{
    *out = NULL;
    if (table_size == 0 || table_size > SIZE_MAX / 2)
        return imgtk_fail(err, IMGTK_EINVAL, "a cache of tables of %zu bytes cannot be", table_size);
    size_t capacity = max_bytes / table_size;
    if (capacity < MIN_TABLES)
        capacity = MIN_TABLES;
    size_t buckets = bucket_count_for(capacity);
    struct imgtk_cache *cache = calloc(1, sizeof(*cache) + buckets * sizeof(cache->buckets[0]));
    if (!cache)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a table cache");
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->loaded, NULL);
    cache->load = load;
    cache->context = context;
    cache->table_size = table_size;
    cache->capacity = capacity;
    cache->max_once = capacity / ONCE_SHARE > MIN_TABLES ? capacity / ONCE_SHARE : MIN_TABLES;
    cache->bucket_mask = buckets - 1;
    *out = cache;
    return 0;
}

void imgtk_cache_free(struct imgtk_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i <= cache->bucket_mask; i++) {
        struct entry *next;
        for (struct entry *entry = cache->buckets[i]; entry; entry = next) {
            next = entry->chain;
            free(entry);
        }
    }
    pthread_cond_destroy(&cache->loaded);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Keys are often offsets, so their low bits are all alike: a multiplication spreads the high ones. */
static struct entry **bucket_of(struct imgtk_cache *cache, uint64_t key)
{
    uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->buckets[(size_t)(hash >> 32) & cache->bucket_mask];
}

static struct entry *find(struct imgtk_cache *cache, uint64_t key)
{
    struct entry *entry = *bucket_of(cache, key);
    while (entry && entry->key != key)
        entry = entry->chain;
    return entry;
}

static void bucket_remove(struct imgtk_cache *cache, struct entry *entry)
{
    struct entry **at = bucket_of(cache, entry->key);
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
}

static void idle_remove(struct imgtk_cache *cache, struct entry *entry)
{
    struct idle_list *list = &cache->idle[entry->again];
    *(entry->newer ? &entry->newer->older : &list->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &list->oldest) = entry->newer;
    list->count--;
}

static void idle_add(struct imgtk_cache *cache, struct entry *entry)
{
    struct idle_list *list = &cache->idle[entry->again];
    entry->newer = NULL;
    entry->older = list->newest;
    *(list->newest ? &list->newest->newer : &list->oldest) = entry;
    list->newest = entry;
    list->count++;
}

/* The idle table to do without if there are to be no more than now; NULL: there may be more. */
static struct entry *surplus(const struct imgtk_cache *cache)
{
    const struct idle_list *once = &cache->idle[false], *again = &cache->idle[true];
    if (once->count >= cache->max_once)
        return once->oldest;
    if (once->count + again->count < cache->capacity)
        return NULL;
    return once->count >= again->count ? once->oldest : again->oldest;
}

static void evict(struct imgtk_cache *cache, struct entry *entry)
{
    idle_remove(cache, entry);
    bucket_remove(cache, entry);
}

/* A new entry in state LOADING with one user; the memory of a table that is one too many is used again. */
static struct entry *add_loading(struct imgtk_cache *cache, uint64_t key)
{
    struct entry *entry = surplus(cache);
    if (entry) {
        evict(cache, entry);
    } else {
        size_t size = sizeof(*entry) + cache->table_size;
        entry = aligned_alloc(alignof(struct entry), (size + alignof(struct entry) - 1) & ~(alignof(struct entry) - 1));
        if (!entry)
            return NULL;
    }
    struct entry **bucket = bucket_of(cache, key);
    entry->chain = *bucket;
    entry->key = key;
    entry->users = 1;
    entry->again = false;
    entry->state = LOADING;
    *bucket = entry;
    return entry;
}

static void drop_failed(struct entry *entry)
{
    if (--entry->users == 0)
        free(entry);
}

static int load(struct imgtk_cache *cache, uint64_t key, struct entry **out, struct imgtk_error *err)
{
    struct entry *entry = add_loading(cache, key);
    if (!entry)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for a table of %zu bytes", cache->table_size);
    pthread_mutex_unlock(&cache->lock);
    int status = cache->load(cache->context, key, entry->table, err);
    pthread_mutex_lock(&cache->lock);
    pthread_cond_broadcast(&cache->loaded);
    if (status == 0) {
        entry->state = LOADED;
        *out = entry;
        return 0;
    }
    entry->state = FAILED;
    bucket_remove(cache, entry);
    drop_failed(entry);
    return status;
}

/* Takes an entry that another thread may still be loading; false when that load failed. */
static bool take(struct imgtk_cache *cache, struct entry *entry)
{
    if (entry->users++ == 0)
        idle_remove(cache, entry);
    entry->again = true;
    while (entry->state == LOADING)
        pthread_cond_wait(&cache->loaded, &cache->lock);
    if (entry->state == LOADED)
        return true;
    drop_failed(entry);
    return false;
}

int imgtk_cache_get(struct imgtk_cache *cache, uint64_t key, const void **table, struct imgtk_error *err)
{
    int status = 0;
    pthread_mutex_lock(&cache->lock);
    struct entry *entry = find(cache, key);
    /* After another thread's failure the load is tried again, since that thread has the message. */
    while (entry && !take(cache, entry))
        entry = find(cache, key);
    if (!entry)
        status = load(cache, key, &entry, err);
    pthread_mutex_unlock(&cache->lock);
    *table = status == 0 ? entry->table : NULL;
    return status;
}

void imgtk_cache_put(struct imgtk_cache *cache, const void *table)
{
    if (!table)
        return;
    struct entry *entry = (struct entry *)((uintptr_t)table - offsetof(struct entry, table));
    struct entry *evicted = NULL;
    pthread_mutex_lock(&cache->lock);
    if (--entry->users == 0) {
        evicted = surplus(cache);
        if (evicted)
            evict(cache, evicted);
        idle_add(cache, entry);
    }
    pthread_mutex_unlock(&cache->lock);
    free(evicted);
}
