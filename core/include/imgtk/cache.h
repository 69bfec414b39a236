/*
 * A bounded, thread-safe, least-recently-used cache of equally large tables
 * (L2 tables, grain tables, pieces of a BAT), which the drivers share.
 */
#ifndef IMGTK_CACHE_H
#define IMGTK_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct imgtk_cache;

/* Fills one table of table_size bytes for key. Called without a lock; two threads may load different keys at once. */
typedef int (*imgtk_cache_load_fn)(void *context, uint64_t key, void *table, struct imgtk_error *err);

/*
 * Keeps up to max(16, max_bytes / table_size) tables that nobody holds; of those that were asked for but once an eighth
 * of that, or 16, so that going over all tables of an image costs little memory.
 */
IMGTK_API int imgtk_cache_new(size_t table_size, size_t max_bytes, imgtk_cache_load_fn load, void *context,
                              struct imgtk_cache **out, struct imgtk_error *err);
IMGTK_API void imgtk_cache_free(struct imgtk_cache *cache);
/* The table for key, loaded when it is not there; stays valid until imgtk_cache_put(). A failed load is not kept. */
IMGTK_API int imgtk_cache_get(struct imgtk_cache *cache, uint64_t key, const void **table, struct imgtk_error *err);
IMGTK_API void imgtk_cache_put(struct imgtk_cache *cache, const void *table);

#ifdef __cplusplus
}
#endif
#endif
