#include "zero.h"

#include <stdint.h>
#include <string.h>

#include "imgtk/bytes.h"

static uint64_t load64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* Tails overlap what was looked at before, which costs less than a loop over single bytes. */
bool is_zero_portable(const void *buf, size_t length)
{
    const uint8_t *p = buf;
    if (length < 8) {
        uint8_t any = 0;
        for (size_t i = 0; i < length; i++)
            any |= p[i];
        return any == 0;
    }
    size_t i = 0;
    for (; i + 64 <= length; i += 64) {
        uint64_t any = 0;
        for (size_t j = 0; j < 64; j += 8)
            any |= load64(p + i + j);
        if (any)
            return false;
    }
    for (; i + 8 <= length; i += 8)
        if (load64(p + i))
            return false;
    return load64(p + length - 8) == 0;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* glibc has asked the CPU already. The compiler's way asks again whenever the library is loaded, and each question is an
   exit from a virtual machine. */
#if __has_include(<sys/platform/x86.h>)
#include <sys/platform/x86.h>
#define HAS_AVX2() CPU_FEATURE_ACTIVE(AVX2)
#else
#define HAS_AVX2() __builtin_cpu_supports("avx2")
#endif

__attribute__((target("avx2"))) static bool is_zero_avx2(const uint8_t *p, size_t length)
{
    size_t i = 0;
    for (; i + 128 <= length; i += 128) {
        const __m256i *v = (const __m256i *)(const void *)(p + i);
        __m256i low = _mm256_or_si256(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1));
        __m256i high = _mm256_or_si256(_mm256_loadu_si256(v + 2), _mm256_loadu_si256(v + 3));
        __m256i any = _mm256_or_si256(low, high);
        if (!_mm256_testz_si256(any, any))
            return false;
    }
    return is_zero_portable(p + i, length - i);
}

bool imgtk_is_zero(const void *buf, size_t length)
{
    if (length >= 128 && HAS_AVX2())
        return is_zero_avx2(buf, length);
    return is_zero_portable(buf, length);
}
#else
bool imgtk_is_zero(const void *buf, size_t length)
{
    return is_zero_portable(buf, length);
}
#endif
