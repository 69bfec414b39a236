/* What is taken for noise, and so is stored without an attempt to compress it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../formats/qcow2/writer.h"

enum { CLUSTER = 64 << 10, LARGEST = 2 << 20 };

/* xorshift64*: the same in every run. */
static void fill_random(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++) {
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        bytes[i] = (uint8_t)((seed * UINT64_C(2685821657736338717)) >> 56);
    }
}

static void random_bytes_are_noise(void **state)
{
    (void)state;
    uint8_t *bytes = malloc(LARGEST);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        fill_random(bytes, CLUSTER, seed);
        assert_true(qcow2_is_noise(bytes, CLUSTER));
    }
    fill_random(bytes, LARGEST, 7);
    assert_true(qcow2_is_noise(bytes, LARGEST));
    free(bytes);
}

static void what_compresses_is_not(void **state)
{
    (void)state;
    uint8_t *bytes = calloc(1, CLUSTER);
    assert_false(qcow2_is_noise(bytes, CLUSTER));
    for (size_t i = 0; i < CLUSTER; i++)
        bytes[i] = (uint8_t)i; /* every value equally often */
    assert_false(qcow2_is_noise(bytes, CLUSTER));
    for (size_t period = 4096; period <= 50000; period += 7651) {
        fill_random(bytes, period, 3);
        for (size_t at = period; at < CLUSTER; at++)
            bytes[at] = bytes[at - period];
        assert_false(qcow2_is_noise(bytes, CLUSTER));
    }
    fill_random(bytes, CLUSTER, 5);
    for (size_t i = 0; i < CLUSTER; i++)
        bytes[i] &= 0x7f; /* an eighth could be saved */
    assert_false(qcow2_is_noise(bytes, CLUSTER));
    fill_random(bytes, CLUSTER, 6);
    memset(bytes, 0, CLUSTER / 4);
    assert_false(qcow2_is_noise(bytes, CLUSTER));
    free(bytes);
}

static void small_clusters_are_tried(void **state)
{
    (void)state;
    uint8_t bytes[2048];
    fill_random(bytes, sizeof(bytes), 9);
    assert_false(qcow2_is_noise(bytes, sizeof(bytes)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_bytes_are_noise),
        cmocka_unit_test(what_compresses_is_not),
        cmocka_unit_test(small_clusters_are_tried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
