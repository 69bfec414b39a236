/* An input as an image that the library opens by name: a file in memory, without a place in any folder. */
#ifndef IMGTK_FUZZ_IMAGE_H
#define IMGTK_FUZZ_IMAGE_H

#include "fuzz.h"
#include "imgtk/image.h"

/*
 * Sparse images, which no fuzzer could find its way in, have a packed form: this tag, one byte of flags, the size of
 * the file (4 bytes), then pieces: where one lies (4 bytes), its length (2), its bytes. All little-endian, the last
 * piece may be cut short. Any other input is an image as it is.
 */
#define FUZZ_PACKED_TAG "imgtkPCS"
enum {
    FUZZ_PACKED_SEALED = 1, /* checksums are made good */
    FUZZ_MAX_IMAGE = 64 << 20
};

/* A context with the modules of this build, which follows no reference and reads no configuration of the machine. */
struct imgtk_context *fuzz_context(void);

/* The file, open for reading and writing; `name` is what the library opens. Aborts when there are no more descriptors. */
int fuzz_image_file(const uint8_t *data, size_t size, char name[32]);

/* Checks the top layer with one thread; a check that fails counts as an error found. repair: IMGTK_REPAIR_*. */
void fuzz_check_image(struct imgtk_image *image, struct imgtk_check *out, uint32_t repair);

#endif
