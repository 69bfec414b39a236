#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "imgtk/cache.h"
#include "scratch.h"

enum { TABLE_SIZE = 512, FAILING_KEY = 666 };

struct loads {
    atomic_uint count;
    atomic_bool fail;
    bool slow;
};

static int load(void *context, uint64_t key, void *table, struct imgtk_error *err)
{
    struct loads *loads = context;
    atomic_fetch_add(&loads->count, 1);
    if (loads->slow) {
        struct timespec pause = { .tv_nsec = 2000000 };
        nanosleep(&pause, NULL);
    }
    if (key == FAILING_KEY && atomic_load(&loads->fail))
        return imgtk_fail(err, IMGTK_ECORRUPT, "table %u is bad", FAILING_KEY);
    for (size_t i = 0; i < TABLE_SIZE / sizeof(key); i++)
        memcpy((char *)table + i * sizeof(key), &key, sizeof(key));
    return 0;
}

static struct imgtk_cache *new_cache(struct loads *loads, size_t max_bytes)
{
    struct imgtk_cache *cache;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_cache_new(TABLE_SIZE, max_bytes, load, loads, &cache, &err), 0);
    return cache;
}

static void touch(struct imgtk_cache *cache, uint64_t key)
{
    const void *table;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_cache_get(cache, key, &table, &err), 0);
    uint64_t first, last;
    memcpy(&first, table, sizeof(first));
    memcpy(&last, (const char *)table + TABLE_SIZE - sizeof(last), sizeof(last));
    assert_int_equal(first, key);
    assert_int_equal(last, key);
    imgtk_cache_put(cache, table);
}

static void loads_once(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 0);
    for (int round = 0; round < 3; round++)
        for (uint64_t key = 0; key < 16; key++)
            touch(cache, key << 16);
    assert_int_equal(loads.count, 16);
    imgtk_cache_free(cache);
}

static void drops_the_least_recently_used(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 16 * TABLE_SIZE);
    for (uint64_t key = 0; key < 16; key++)
        touch(cache, key);
    touch(cache, 0);
    touch(cache, 100); /* drops 1 */
    assert_int_equal(loads.count, 17);
    touch(cache, 0);
    assert_int_equal(loads.count, 17);
    touch(cache, 1);
    assert_int_equal(loads.count, 18);
    imgtk_cache_free(cache);
}

static void keeps_what_is_asked_for_again(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 256 * TABLE_SIZE);
    for (int round = 0; round < 2; round++)
        for (uint64_t key = 0; key < 30; key++)
            touch(cache, key);
    for (uint64_t key = 1000; key < 3000; key++) /* somebody goes over all tables once */
        touch(cache, key);
    assert_int_equal(loads.count, 30 + 2000);
    for (uint64_t key = 0; key < 30; key++)
        touch(cache, key);
    assert_int_equal(loads.count, 30 + 2000);
    imgtk_cache_free(cache);
}

static void keeps_little_of_what_is_asked_for_once(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 256 * TABLE_SIZE);
    for (uint64_t key = 0; key < 100; key++)
        touch(cache, key);
    for (uint64_t key = 68; key < 100; key++) /* the last eighth of 256 */
        touch(cache, key);
    assert_int_equal(loads.count, 100);
    touch(cache, 67);
    assert_int_equal(loads.count, 101);
    imgtk_cache_free(cache);
}

static void keeps_as_many_as_it_may(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 64 * TABLE_SIZE);
    for (uint64_t key = 0; key < 80; key++)
        for (int round = 0; round < 2; round++)
            touch(cache, key);
    for (uint64_t key = 16; key < 80; key++)
        touch(cache, key);
    assert_int_equal(loads.count, 80);
    touch(cache, 15);
    assert_int_equal(loads.count, 81);
    imgtk_cache_free(cache);
}

static void keeps_what_is_held(void **state)
{
    (void)state;
    struct loads loads = { 0 };
    struct imgtk_cache *cache = new_cache(&loads, 0);
    const void *held[40];
    for (uint64_t key = 0; key < 40; key++)
        assert_int_equal(imgtk_cache_get(cache, key, &held[key], NULL), 0);
    for (uint64_t key = 0; key < 40; key++) {
        const void *again;
        assert_int_equal(imgtk_cache_get(cache, key, &again, NULL), 0);
        assert_ptr_equal(again, held[key]);
        imgtk_cache_put(cache, again);
    }
    assert_int_equal(loads.count, 40);
    for (uint64_t key = 0; key < 40; key++) {
        assert_memory_equal(held[key], &key, sizeof(key));
        imgtk_cache_put(cache, held[key]);
    }
    touch(cache, 39);
    assert_int_equal(loads.count, 40);
    touch(cache, 0); /* only 16 are kept that nobody holds */
    assert_int_equal(loads.count, 41);
    imgtk_cache_free(cache);
}

static void does_not_keep_failures(void **state)
{
    (void)state;
    struct loads loads = { .fail = true };
    struct imgtk_cache *cache = new_cache(&loads, 0);
    const void *table;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_cache_get(cache, FAILING_KEY, &table, &err), IMGTK_ECORRUPT);
    assert_string_equal(err.message, "table 666 is bad");
    assert_null(table);
    imgtk_cache_put(cache, NULL);
    atomic_store(&loads.fail, false);
    touch(cache, FAILING_KEY);
    assert_int_equal(loads.count, 2);
    imgtk_cache_free(cache);
}

static void refuses_impossible_tables(void **state)
{
    (void)state;
    struct imgtk_cache *cache;
    assert_int_equal(imgtk_cache_new(0, 0, load, NULL, &cache, NULL), IMGTK_EINVAL);
    assert_int_equal(imgtk_cache_new(SIZE_MAX, 0, load, NULL, &cache, NULL), IMGTK_EINVAL);
    imgtk_cache_free(cache);
}

struct worker {
    struct imgtk_cache *cache;
    unsigned seed;
    unsigned failures, mismatches;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < 4000; i++) {
        worker->seed = worker->seed * 1103515245u + 12345u;
        uint64_t key = (worker->seed >> 16) % 50 == 0 ? FAILING_KEY : (worker->seed >> 16) % 48;
        const void *table;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        if (imgtk_cache_get(worker->cache, key, &table, &err)) {
            worker->failures++;
            worker->mismatches += key != FAILING_KEY || err.status != IMGTK_ECORRUPT;
            continue;
        }
        worker->mismatches += memcmp(table, &key, sizeof(key)) != 0;
        imgtk_cache_put(worker->cache, table);
    }
    return NULL;
}

static void serves_many_threads(void **state)
{
    (void)state;
    struct loads loads = { .fail = true };
    struct imgtk_cache *cache = new_cache(&loads, 0);
    struct worker workers[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){ .cache = cache, .seed = i };
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    unsigned failures = 0;
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].mismatches, 0);
        failures += workers[i].failures;
    }
    assert_true(failures > 0);
    imgtk_cache_free(cache);
}

static void *get_one(void *argument)
{
    const void *table;
    if (imgtk_cache_get(argument, 7, &table, NULL) == 0)
        imgtk_cache_put(argument, table);
    return NULL;
}

static void threads_wait_for_a_load_that_runs(void **state)
{
    (void)state;
    struct loads loads = { .slow = true };
    struct imgtk_cache *cache = new_cache(&loads, 0);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_one, cache), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(loads.count, 1);
    imgtk_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_once),
        cmocka_unit_test(drops_the_least_recently_used),
        cmocka_unit_test(keeps_what_is_asked_for_again),
        cmocka_unit_test(keeps_little_of_what_is_asked_for_once),
        cmocka_unit_test(keeps_as_many_as_it_may),
        cmocka_unit_test(keeps_what_is_held),
        cmocka_unit_test(does_not_keep_failures),
        cmocka_unit_test(refuses_impossible_tables),
        cmocka_unit_test(serves_many_threads),
        cmocka_unit_test(threads_wait_for_a_load_that_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
