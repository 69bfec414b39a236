/*
 * What the fuzz targets share. A target is a program with libFuzzer's entry
 * point; what it is about stands in docs/fuzzing.md.
 *
 * A target aborts when the code under test breaks a promise that no sanitizer
 * knows of: see FUZZ_REQUIRE and fuzz_judge().
 */
#ifndef IMGTK_FUZZ_H
#define IMGTK_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "imgtk/error.h"

struct imgtk_storage;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional: once, before the first input. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FUZZ_REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* A failure must be told: its status is in the error, and there is a message of one line. Returns `status`. */
int fuzz_judge(int status, const struct imgtk_error *err);

/* An input, of which a target takes the numbers that it needs from the front. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};
/* A little-endian number of the next `bytes` (<= 8) bytes; those that are missing are zero. */
uint64_t fuzz_take(struct fuzz_input *input, unsigned bytes);
/* A copy of exactly `length` bytes from the front, to be freed, so that a read beyond them is seen; padded with zeroes. */
uint8_t *fuzz_take_copy(struct fuzz_input *input, size_t length);
/* What is left as a storage in memory. */
struct imgtk_storage *fuzz_storage(const struct fuzz_input *input);

#endif
