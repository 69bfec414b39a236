/*
 * Bytes from images: endian access at any alignment, and arithmetic that
 * cannot wrap. Inline but for one, so that a parser costs no call.
 */
#ifndef IMGTK_BYTES_H
#define IMGTK_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline uint16_t imgtk_be16(const void *at)
{
    const uint8_t *p = (const uint8_t *)at;
    return (uint16_t)((p[0] << 8) | p[1]);
}

static inline uint32_t imgtk_be32(const void *at)
{
    const uint8_t *p = (const uint8_t *)at;
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static inline uint64_t imgtk_be64(const void *at)
{
    return ((uint64_t)imgtk_be32(at) << 32) | imgtk_be32((const uint8_t *)at + 4);
}

static inline uint16_t imgtk_le16(const void *at)
{
    const uint8_t *p = (const uint8_t *)at;
    return (uint16_t)((p[1] << 8) | p[0]);
}

static inline uint32_t imgtk_le32(const void *at)
{
    const uint8_t *p = (const uint8_t *)at;
    return ((uint32_t)p[3] << 24) | ((uint32_t)p[2] << 16) | ((uint32_t)p[1] << 8) | p[0];
}

static inline uint64_t imgtk_le64(const void *at)
{
    return ((uint64_t)imgtk_le32((const uint8_t *)at + 4) << 32) | imgtk_le32(at);
}

static inline void imgtk_put_be16(void *at, uint16_t value)
{
    uint8_t *p = (uint8_t *)at;
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void imgtk_put_be32(void *at, uint32_t value)
{
    imgtk_put_be16(at, (uint16_t)(value >> 16));
    imgtk_put_be16((uint8_t *)at + 2, (uint16_t)value);
}

static inline void imgtk_put_be64(void *at, uint64_t value)
{
    imgtk_put_be32(at, (uint32_t)(value >> 32));
    imgtk_put_be32((uint8_t *)at + 4, (uint32_t)value);
}

static inline void imgtk_put_le16(void *at, uint16_t value)
{
    uint8_t *p = (uint8_t *)at;
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void imgtk_put_le32(void *at, uint32_t value)
{
    imgtk_put_le16(at, (uint16_t)value);
    imgtk_put_le16((uint8_t *)at + 2, (uint16_t)(value >> 16));
}

static inline void imgtk_put_le64(void *at, uint64_t value)
{
    imgtk_put_le32(at, (uint32_t)value);
    imgtk_put_le32((uint8_t *)at + 4, (uint32_t)(value >> 32));
}

/* *out = a + b (a * b); false, with *out untouched or wrapped, when it does not fit. */
static inline bool imgtk_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    *out = a + b;
    return *out >= a;
}

static inline bool imgtk_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    *out = a * b;
    return a == 0 || *out / a == b;
}

/* Whether [offset, offset + length) lies within size. */
static inline bool imgtk_range_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

static inline uint64_t imgtk_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t imgtk_div_round_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* unit: a power of two. Rounding up the last partial unit below 2^64 wraps to 0; image sizes are below 2^63. */
static inline uint64_t imgtk_round_down(uint64_t value, uint64_t unit)
{
    return value & ~(unit - 1);
}

static inline uint64_t imgtk_round_up(uint64_t value, uint64_t unit)
{
    return imgtk_round_down(value + unit - 1, unit);
}

static inline bool imgtk_is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/*
 * Whether all length bytes are zero; stops at the first that is not. Any alignment; length 0 is true. Each byte counts
 * as it was when it was looked at: of bytes that others change meanwhile, no answer is wrong for those that stay.
 */
IMGTK_API bool imgtk_is_zero(const void *buf, size_t length);

#ifdef __cplusplus
}
#endif
#endif
