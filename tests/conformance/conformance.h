/* What the cases share: the image under test, and helpers. The cases are run by conformance.c. */
#ifndef IMGTK_CONFORMANCE_H
#define IMGTK_CONFORMANCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <imgtk/bytes.h>
#include <imgtk/info.h>
#include <imgtk/jobs.h>

#define MAX_READ (3u << 20)
#define SECTOR 512u
#define THREADS 4

struct subject {
    const char *format, *path, *content_path, *options;
    uint8_t *content; /* size bytes */
    uint64_t size;
    struct imgtk_context *context;
    struct imgtk_image *image;
};

extern struct subject subject;

/* Open the image and read the content; close it. */
int set_up(void **state);
int tear_down(void **state);

#define assert_ok(call) assert_ok_at((call), &err, #call, __FILE__, __LINE__)
void assert_ok_at(int status, const struct imgtk_error *err, const char *call, const char *file, int line);

/* A failure has its status in the error, and one line that says what is wrong. */
void assert_error(int status, const struct imgtk_error *err);

/* The memory is there, or the case has failed; to be freed. */
void *allocate(size_t size);
uint8_t *read_whole_file(const char *path, uint64_t *size);

uint64_t next_random(uint64_t *state);

/* Whether the content has nothing but zeroes there. */
bool is_zero(uint64_t offset, uint64_t length);

/* What was read at the offset is the content. */
void check_bytes(const uint8_t *got, uint64_t offset, size_t length);

int open_image(const char *path, const char *format, struct imgtk_image **out, struct imgtk_error *err);
const struct imgtk_layer *top(struct imgtk_image *image);

/* The extent of the top layer that begins at the offset, as its driver answers. */
int ask_layer(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_extent *out,
              struct imgtk_error *err);

/* The cases. */
void probe_recognises_it_and_nobody_else_does(void **state);
void probe_looks_at_what_is_there_alone(void **state);
void size_is_the_disks(void **state);
void reads_the_whole_disk(void **state);
void reads_of_every_alignment_and_length(void **state);
void reads_to_the_end(void **state);
void reads_across_every_boundary(void **state);
void requests_past_the_end_are_errors(void **state);
void extents_cover_the_disk_and_tell_the_truth(void **state);
void extents_agree_wherever_they_are_asked(void **state);
void the_map_covers_the_disk_once(void **state);
void threads_read_and_walk_at_once(void **state);
void info_is_told(void **state);
void check_is_clean(void **state);
void truncation_is_an_error_or_harmless(void **state);
void flipped_bytes_never_crash(void **state);
void threads_write_the_same_file_as_one(void **state);

#endif
