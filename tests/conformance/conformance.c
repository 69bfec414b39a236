/*
 * The same cases for every format: what docs/writing-a-format.md promises to
 * core. Uses the public library alone, so a driver that is built elsewhere can
 * be tested with it too:
 *
 *   IMGTK_MODULE_PATH=DIR conformance FORMAT IMAGE CONTENT [-s SIZE] [-o OPTIONS] [-t CASE] [-x CASE]
 *
 * IMAGE is a FORMAT image whose disk holds the bytes of the file CONTENT, and
 * zeroes after them up to SIZE (default: CONTENT's size). Damaged copies and
 * new images are made in the folder ".", which should be an empty one, beside
 * files that IMAGE refers to. OPTIONS are the -o for writing one that make it
 * reproducible. CASE, with * and ?, picks cases by name (-t) or leaves them out (-x).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <imgtk/bytes.h>
#include <imgtk/info.h>
#include <imgtk/jobs.h>

#define MAX_READ (3u << 20)
#define SECTOR 512u
#define THREADS 4
#define MAX_STEPS 2000u      /* extents of a damaged image that are looked at */
#define DAMAGE_READ (256u << 10) /* bytes of a damaged image that are read */
#define DAMAGE_HEAD 512u      /* bytes at either end that are damaged one by one */
#define DAMAGE_SAMPLES 300u    /* places elsewhere in the metadata */

struct subject {
    const char *format, *path, *content_path, *options;
    uint8_t *content; /* size bytes */
    uint64_t size;
    struct imgtk_context *context;
    struct imgtk_image *image;
};

static struct subject subject;

/* ---- Helpers ------------------------------------------------------------ */

#define assert_ok(call) assert_ok_at((call), &err, #call, __FILE__, __LINE__)

static void assert_ok_at(int status, const struct imgtk_error *err, const char *call, const char *file, int line)
{
    if (status)
        print_error("%s: %d: %s\n", call, status, err->message);
    _assert_true(status == 0, call, file, line);
}

/* A failure has its status in the error, and one line that says what is wrong. */
static void assert_error(int status, const struct imgtk_error *err)
{
    assert_true(status < 0);
    assert_int_equal(status, err->status);
    assert_true(err->message[0] != '\0');
    assert_null(strpbrk(err->message, "\r\n"));
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool is_zero(uint64_t offset, uint64_t length)
{
    const uint8_t *bytes = subject.content + offset;
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)length - 1) == 0);
}

static int open_image(const char *path, const char *format, struct imgtk_image **out, struct imgtk_error *err)
{
    struct imgtk_image_request request = { .format = format };
    return imgtk_image_open(subject.context, path, &request, out, err);
}

static const struct imgtk_layer *top(struct imgtk_image *image)
{
    return imgtk_image_layer(image, 0);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    assert_non_null(memory);
    return memory;
}

static uint8_t *read_whole_file(const char *path, uint64_t *size)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &st), 0);
    *size = (uint64_t)st.st_size;
    uint8_t *bytes = allocate((size_t)st.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, file), (size_t)st.st_size);
    fclose(file);
    return bytes;
}

/* ---- Recognising ---------------------------------------------------------- */

static void probe_one(const struct imgtk_module *module, const struct imgtk_probe *probe)
{
    enum imgtk_probe_result answer = module->driver->probe(probe);
    bool mine = strcmp(module->driver->name, subject.format) == 0;
    if (mine ? answer == IMGTK_PROBE_NO : answer != IMGTK_PROBE_NO)
        fail_msg("%s answers %d to an image of %s", module->driver->name, answer, subject.format);
}

static void probe_recognises_it_and_nobody_else_does(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_module *modules;
    size_t count;
    uint64_t size;
    (void)state;
    if (strcmp(subject.format, "raw") == 0)
        skip(); /* raw is what nobody recognises */
    uint8_t *bytes = read_whole_file(subject.path, &size);
    size_t part = (size_t)imgtk_min_u64(size, IMGTK_PROBE_SIZE);
    struct imgtk_probe probe = { .head = bytes, .head_length = part, .tail = bytes + size - part, .tail_length = part,
                                 .size = size };
    assert_ok(imgtk_modules(subject.context, &modules, &count, &err));
    for (size_t i = 0; i < count; i++)
        if (modules[i].driver && strcmp(modules[i].driver->name, "raw") != 0)
            probe_one(&modules[i], &probe);
    free(bytes);

    struct imgtk_image *image;
    assert_ok(open_image(subject.path, NULL, &image, &err));
    assert_string_equal(top(image)->driver->name, subject.format);
    assert_false(top(image)->format_guessed);
    imgtk_image_close(image);
}

/* Whatever the length of the file, and with no tail as from a pipe: no byte beyond what is there is looked at. */
static void probe_looks_at_what_is_there_alone(void **state)
{
    uint64_t size;
    (void)state;
    uint8_t *bytes = read_whole_file(subject.path, &size);
    for (size_t length = 0; length <= imgtk_min_u64(size, IMGTK_PROBE_SIZE); length += length < 1100 ? 1 : 97) {
        uint8_t *head = allocate(length + 1), *tail = allocate(length + 1);
        memmove(head + 1, bytes, length); /* the sanitizers know where these end */
        memmove(tail + 1, bytes + size - length, length);
        struct imgtk_probe probe = { .head = head + 1, .head_length = length, .tail = tail + 1, .tail_length = length,
                                     .size = length };
        top(subject.image)->driver->probe(&probe);
        probe.tail = NULL;
        probe.tail_length = 0;
        probe.size = 0;
        top(subject.image)->driver->probe(&probe);
        free(head);
        free(tail);
    }
    free(bytes);
}

static void size_is_the_disks(void **state)
{
    (void)state;
    assert_int_equal(imgtk_image_size(subject.image), subject.size);
    assert_int_equal(top(subject.image)->size, subject.size);
}

/* ---- Reading -------------------------------------------------------------- */

static void check_bytes(const uint8_t *got, uint64_t offset, size_t length)
{
    if (memcmp(got, subject.content + offset, length) == 0)
        return;
    size_t at = 0;
    while (got[at] == subject.content[offset + at])
        at++;
    fail_msg("reading %zu bytes at offset %llu: byte %llu is 0x%02x, not 0x%02x", length, (unsigned long long)offset,
             (unsigned long long)offset + at, got[at], subject.content[offset + at]);
}

/* As much of [offset, offset + length) as lies within the disk. */
static void read_and_check(uint8_t *buf, uint64_t offset, uint64_t length)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (offset >= subject.size)
        return;
    length = imgtk_min_u64(length, subject.size - offset);
    memset(buf, 0xA5, (size_t)length + 1);
    assert_ok(imgtk_image_read(subject.image, buf, (size_t)length, offset, &err));
    assert_int_equal(buf[length], 0xA5);
    check_bytes(buf, offset, (size_t)length);
}

static const uint32_t lengths[] = { 1, 2, 3, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 1u << 20, MAX_READ };
enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

static void reads_the_whole_disk(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += MAX_READ - 7)
        read_and_check(buf, offset, MAX_READ);
    free(buf);
}

static void reads_of_every_alignment_and_length(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    uint64_t random = 42;
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < 300; i++) {
        uint64_t offset = next_random(&random) % subject.size;
        if (i % 3 == 0)
            offset = imgtk_round_down(offset, SECTOR);
        read_and_check(buf, offset, lengths[i % LENGTHS]);
    }
    free(buf);
}

static void reads_to_the_end(void **state)
{
    uint8_t *buf = allocate(MAX_READ + 1);
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++)
        if (lengths[i] <= subject.size)
            read_and_check(buf, subject.size - lengths[i], lengths[i]);
    free(buf);
}

static int ask_layer(struct imgtk_image *image, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                     struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    return top(image)->driver->extent(top(image)->handle, offset, length, out, err);
}

static void reads_across_every_boundary(void **state)
{
    static const uint32_t around[] = { 1, SECTOR, 70000 };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint8_t *buf = allocate(2 * 70000 + 1);
    struct imgtk_extent extent;
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += extent.length) {
        assert_ok(ask_layer(subject.image, offset, subject.size - offset, &extent, &err));
        for (size_t i = 0; offset > 0 && i < sizeof(around) / sizeof(around[0]); i++) {
            uint64_t before = imgtk_min_u64(around[i], offset);
            read_and_check(buf, offset - before, before + around[i]);
        }
    }
    free(buf);
}

static void requests_past_the_end_are_errors(void **state)
{
    const uint64_t size = subject.size;
    const struct { uint64_t offset, length; } requests[] = {
        { size, 1 }, { size ? size - 1 : 0, 2 }, { size + 1, 1 }, { 0, size + 1 }, { UINT64_MAX, 1 },
        { UINT64_MAX - 4095, 4096 }, { size + 4096, 4096 }, { INT64_MAX, 512 } };
    struct imgtk_walk *walk;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint8_t *buf = allocate((size_t)size + 4096);
    (void)state;
    assert_ok(imgtk_walk_new(subject.image, &walk, &err));
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct imgtk_chain_extent extent;
        err = (struct imgtk_error)IMGTK_ERROR_INIT;
        assert_error(imgtk_image_read(subject.image, buf, (size_t)requests[i].length, requests[i].offset, &err), &err);
        err = (struct imgtk_error)IMGTK_ERROR_INIT;
        assert_error(imgtk_walk_next(walk, requests[i].offset, requests[i].length, &extent, &err), &err);
    }
    imgtk_walk_free(walk);
    free(buf);
}

/* ---- Extents -------------------------------------------------------------- */

static void check_plain(const struct imgtk_extent *extent, uint64_t offset, uint64_t length)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    size_t room = (size_t)imgtk_min_u64(length, MAX_READ), got;
    uint8_t *buf = allocate(room);
    assert_non_null(extent->file);
    for (uint64_t done = 0; done < length; done += room) {
        size_t piece = (size_t)imgtk_min_u64(length - done, room);
        assert_ok(imgtk_storage_pread_some(extent->file, buf, piece, extent->host_offset + done, &got, &err));
        memset(buf + got, 0, piece - got); /* a file that ends early reads as zeroes */
        check_bytes(buf, offset + done, piece);
    }
    free(buf);
}

/* most: how many of its bytes are compared */
static void check_extent(const struct imgtk_extent *extent, uint64_t offset, uint64_t most)
{
    const uint32_t known = IMGTK_EXTENT_COMPRESSED | IMGTK_EXTENT_PLAIN | IMGTK_EXTENT_ASK_STORAGE |
                           IMGTK_EXTENT_UNALLOCATED | IMGTK_EXTENT_STORAGE_HOLE;
    uint64_t length = imgtk_min_u64(imgtk_min_u64(extent->length, subject.size - offset), most);
    bool data = extent->kind == IMGTK_EXTENT_DATA;
    assert_true(extent->length > 0);
    assert_true(data || extent->kind == IMGTK_EXTENT_ZERO || extent->kind == IMGTK_EXTENT_BACKING);
    assert_int_equal(extent->flags & ~known, 0);
    assert_false((extent->flags & IMGTK_EXTENT_COMPRESSED) && (extent->flags & IMGTK_EXTENT_PLAIN));
    assert_false((extent->flags & IMGTK_EXTENT_COMPRESSED) && !data);
    assert_false((extent->flags & IMGTK_EXTENT_UNALLOCATED) && data);
    if (!data && imgtk_image_depth(subject.image) == 1)
        assert_true(is_zero(offset, length));
    if (data && (extent->flags & IMGTK_EXTENT_PLAIN))
        check_plain(extent, offset, length);
}

static void extents_cover_the_disk_and_tell_the_truth(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_extent extent;
    (void)state;
    for (uint64_t offset = 0; offset < subject.size; offset += extent.length) {
        assert_ok(ask_layer(subject.image, offset, subject.size - offset, &extent, &err));
        check_extent(&extent, offset, UINT64_MAX);
        assert_true(extent.length <= INT64_MAX);
    }
}

/* The hint of how far the caller cares, and where in an extent it begins, change no answer. */
static void extents_agree_wherever_they_are_asked(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_extent extent, again;
    uint64_t random = 7;
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < 1000; i++) {
        uint64_t offset = next_random(&random) % subject.size;
        uint64_t length = next_random(&random) % (subject.size - offset) + 1;
        assert_ok(ask_layer(subject.image, offset, length, &extent, &err));
        check_extent(&extent, offset, 64u << 10);
        uint64_t inside = offset + next_random(&random) % imgtk_min_u64(extent.length, subject.size - offset);
        assert_ok(ask_layer(subject.image, inside, 1, &again, &err));
        assert_int_equal(again.kind, extent.kind);
        assert_int_equal(again.flags & IMGTK_EXTENT_PLAIN, extent.flags & IMGTK_EXTENT_PLAIN);
        if ((extent.flags & IMGTK_EXTENT_PLAIN) && extent.kind == IMGTK_EXTENT_DATA) {
            assert_ptr_equal(again.file, extent.file);
            assert_int_equal(again.host_offset, extent.host_offset + (inside - offset));
        }
    }
}

struct map_state {
    uint64_t next;
    unsigned rows;
};

static int map_row(void *context, const struct imgtk_chain_extent *row)
{
    struct map_state *map = context;
    assert_int_equal(row->start, map->next);
    assert_true(row->extent.length > 0);
    assert_true(imgtk_range_fits(row->start, row->extent.length, subject.size));
    assert_int_not_equal(row->extent.kind, IMGTK_EXTENT_BACKING);
    if (row->extent.kind == IMGTK_EXTENT_ZERO)
        assert_true(is_zero(row->start, row->extent.length));
    else if (row->extent.flags & IMGTK_EXTENT_PLAIN)
        check_plain(&row->extent, row->start, row->extent.length);
    map->next = row->start + row->extent.length;
    map->rows++;
    return 0;
}

static void the_map_covers_the_disk_once(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct map_state whole = { 0 }, part = { .next = subject.size / 3 };
    struct imgtk_map job = { .image = subject.image, .length = UINT64_MAX, .row = map_row, .context = &whole };
    (void)state;
    assert_ok(imgtk_map(&job, &err));
    assert_int_equal(whole.next, subject.size);
    job.start = part.next;
    job.length = subject.size / 3;
    job.context = &part;
    assert_ok(imgtk_map(&job, &err));
    assert_int_equal(part.next, subject.size / 3 * 2);
}

/* ---- Threads -------------------------------------------------------------- */

struct reader {
    pthread_t thread;
    uint64_t random;
    const char *wrong;
    struct imgtk_error err;
};

/* cmocka's assertions are for its own thread. */
static const char *read_some(struct imgtk_walk *walk, uint8_t *buf, struct reader *reader)
{
    struct imgtk_chain_extent extent;
    uint64_t offset = next_random(&reader->random) % subject.size;
    uint64_t length = next_random(&reader->random) % 200000 + 1;
    length = imgtk_min_u64(length, subject.size - offset);
    if (imgtk_image_read(subject.image, buf, (size_t)length, offset, &reader->err))
        return reader->err.message;
    if (memcmp(buf, subject.content + offset, (size_t)length) != 0)
        return "the bytes differ";
    if (imgtk_walk_next(walk, offset, length, &extent, &reader->err))
        return reader->err.message;
    if (extent.start != offset || extent.extent.length == 0 || extent.extent.length > length)
        return "the extent is not within what was asked";
    if (extent.extent.kind == IMGTK_EXTENT_ZERO && !is_zero(offset, extent.extent.length))
        return "bytes that the extent calls zeroes are not";
    if (imgtk_walk_read(walk, buf, (size_t)length, offset, &reader->err))
        return reader->err.message;
    return memcmp(buf, subject.content + offset, (size_t)length) == 0 ? NULL : "the bytes of a walk differ";
}

static void *read_at_random(void *context)
{
    struct reader *reader = context;
    struct imgtk_walk *walk = NULL;
    uint8_t *buf = malloc(200000);
    if (!buf || imgtk_walk_new(subject.image, &walk, &reader->err))
        reader->wrong = "cannot begin";
    for (unsigned i = 0; !reader->wrong && i < 150; i++)
        reader->wrong = read_some(walk, buf, reader);
    imgtk_walk_free(walk);
    free(buf);
    return NULL;
}

static void threads_read_and_walk_at_once(void **state)
{
    struct reader readers[THREADS] = { { 0 } };
    (void)state;
    for (unsigned i = 0; subject.size > 0 && i < THREADS; i++) {
        readers[i].random = i + 1;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_at_random, &readers[i]), 0);
    }
    for (unsigned i = 0; subject.size > 0 && i < THREADS; i++)
        pthread_join(readers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (readers[i].wrong)
            fail_msg("thread %u: %s", i, readers[i].wrong);
}

/* ---- Telling and checking ------------------------------------------------- */

static void info_is_told(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_layer_info info = { 0 };
    (void)state;
    assert_ok(imgtk_layer_describe(top(subject.image), &info, &err));
    assert_ok(imgtk_info_status(info.specific, &err));
    assert_ok(imgtk_info_status(info.snapshots, &err));
    char *json = imgtk_info_json(info.specific);
    assert_non_null(json);
    assert_true(json[0] == '{');
    assert_false(info.encrypted);
    if (info.cluster_size)
        assert_true(info.cluster_size <= INT64_MAX);
    free(json);
    imgtk_info_free(info.specific);
    imgtk_info_free(info.snapshots);
}

static void print_finding(void *context, const char *message)
{
    (void)context;
    print_error("check: %s\n", message);
}

static void check_is_clean(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_check check = { .workers = 2, .report = print_finding };
    struct imgtk_image_request request = { .format = subject.format, .single_layer = true, .check = true };
    struct imgtk_image *image;
    (void)state;
    if (!imgtk_driver_can_check(top(subject.image)->driver))
        skip();
    assert_ok(imgtk_image_open(subject.context, subject.path, &request, &image, &err));
    int status = imgtk_image_check(image, &check, &err);
    if (status == IMGTK_EREFUSED) { /* the data lie in other files, and a check follows no reference */
        imgtk_image_close(image);
        print_message("%s\n", err.message);
        skip();
    }
    assert_ok(status);
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    assert_int_equal(check.check_errors, 0);
    assert_true(check.allocated_clusters <= check.total_clusters);
    imgtk_image_close(image);
}

/* ---- Damage --------------------------------------------------------------- */

/* Opens, walks and reads; whatever comes of it but a crash is right, when `exact` only the disk's own bytes are. */
static void use_damaged(const char *path, bool exact)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *image;
    struct imgtk_extent extent;
    uint8_t *buf = allocate(DAMAGE_READ);
    int status = open_image(path, subject.format, &image, &err);
    if (status) {
        assert_error(status, &err);
        free(buf);
        return;
    }
    uint64_t size = imgtk_image_size(image), read = 0;
    exact = exact && size == subject.size;
    unsigned steps = 0;
    for (uint64_t offset = 0; !status && offset < size && steps < MAX_STEPS; offset += extent.length, steps++) {
        status = ask_layer(image, offset, size - offset, &extent, &err);
        if (status) {
            assert_error(status, &err);
            break;
        }
        assert_true(extent.length > 0 && extent.length <= INT64_MAX);
        size_t length = (size_t)imgtk_min_u64(imgtk_min_u64(extent.length, size - offset), 4096);
        if (read + length > DAMAGE_READ)
            continue;
        read += length;
        if (imgtk_image_read(image, buf, length, offset, &err) == 0 && exact)
            check_bytes(buf, offset, length);
    }
    imgtk_image_close(image);
    free(buf);
}

static int make_copy(const char *path, const uint8_t *bytes, uint64_t size)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, (size_t)size, 0), (ssize_t)size);
    return fd;
}

static const char damaged_name[] = "damaged.image";

static void truncation_is_an_error_or_harmless(void **state)
{
    uint64_t size;
    (void)state;
    if (strcmp(subject.format, "raw") == 0)
        skip(); /* a shorter raw image is a smaller disk */
    uint8_t *bytes = read_whole_file(subject.path, &size);
    int fd = make_copy(damaged_name, bytes, size);
    for (uint64_t length = size; length > 0;) {
        uint64_t step = length <= DAMAGE_HEAD || size - length < SECTOR + 8 ? 3 : length > 1u << 20 ? 321777 : 2043;
        length -= imgtk_min_u64(step, length);
        assert_int_equal(ftruncate(fd, (off_t)length), 0);
        use_damaged(damaged_name, true);
    }
    close(fd);
    unlink(damaged_name);
    free(bytes);
}

static void flip(int fd, const uint8_t *bytes, uint64_t at, uint8_t mask)
{
    uint8_t changed = bytes[at] ^ mask;
    assert_int_equal(pwrite(fd, &changed, 1, (off_t)at), 1);
    use_damaged(damaged_name, false);
    assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
}

static void flipped_bytes_never_crash(void **state)
{
    uint64_t size, random = 99;
    (void)state;
    uint8_t *bytes = read_whole_file(subject.path, &size);
    int fd = make_copy(damaged_name, bytes, size);
    for (uint64_t at = 0; at < imgtk_min_u64(size, DAMAGE_HEAD); at++) {
        flip(fd, bytes, at, 0xFF);
        flip(fd, bytes, at, (uint8_t)(1u << (next_random(&random) % 8)));
        flip(fd, bytes, size - 1 - at, (uint8_t)(1u << (next_random(&random) % 8)));
    }
    for (unsigned i = 0; size > 0 && i < DAMAGE_SAMPLES; i++) {
        uint64_t reach = i % 2 ? size : imgtk_min_u64(size, 64u << 10);
        flip(fd, bytes, next_random(&random) % reach, (uint8_t)(next_random(&random) % 255 + 1));
    }
    close(fd);
    unlink(damaged_name);
    free(bytes);
}

/* ---- Writing -------------------------------------------------------------- */

static void enter_new_folder(const char *name)
{
    assert_int_equal(mkdir(name, 0700), 0);
    assert_int_equal(chdir(name), 0);
}

/* Under one name in a folder of its own, since an image may hold its name. */
static void write_image(const char *folder, struct imgtk_image *source, unsigned workers)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_convert job = {
        .sources = &source, .source_count = 1, .sparse_size = IMGTK_SPARSE_DEFAULT, .workers = workers,
        .target = { .name = "new.image", .format = subject.format, .format_opts = subject.options, .no_sync = true } };
    enter_new_folder(folder);
    assert_ok(imgtk_convert(subject.context, &job, &err));
    assert_int_equal(chdir(".."), 0);
}

static bool same_file(const char *one, const char *two)
{
    uint64_t size_one, size_two;
    uint8_t *a = read_whole_file(one, &size_one), *b = read_whole_file(two, &size_two);
    bool same = size_one == size_two && memcmp(a, b, (size_t)size_one) == 0;
    free(a);
    free(b);
    return same;
}

static void writes_what_it_reads(const char *path)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *image;
    uint8_t *buf = allocate(MAX_READ);
    assert_ok(open_image(path, subject.format, &image, &err));
    assert_int_equal(imgtk_image_size(image), subject.size);
    for (uint64_t offset = 0; offset < subject.size; offset += MAX_READ) {
        size_t length = (size_t)imgtk_min_u64(MAX_READ, subject.size - offset);
        assert_ok(imgtk_image_read(image, buf, length, offset, &err));
        check_bytes(buf, offset, length);
    }
    imgtk_image_close(image);
    free(buf);
}

static void threads_write_the_same_file_as_one(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_image *content;
    (void)state;
    if (!imgtk_driver_can_write(top(subject.image)->driver))
        skip();
    assert_ok(open_image(subject.content_path, "raw", &content, &err));
    write_image("one", content, 1);
    writes_what_it_reads("one/new.image");
    for (unsigned i = 0; i < 3; i++) {
        char folder[16], path[32];
        snprintf(folder, sizeof(folder), "four%u", i);
        snprintf(path, sizeof(path), "%s/new.image", folder);
        write_image(folder, content, THREADS);
        assert_true(same_file("one/new.image", path));
        if (i == 0)
            writes_what_it_reads(path);
    }
    imgtk_image_close(content);
}

/* ---- The program ---------------------------------------------------------- */

static int set_up(void **state)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint64_t content_size;
    (void)state;
    uint8_t *content = read_whole_file(subject.content_path, &content_size);
    if (!subject.size)
        subject.size = content_size;
    subject.content = calloc(1, (size_t)subject.size + 1);
    assert_non_null(subject.content);
    memcpy(subject.content, content, (size_t)imgtk_min_u64(content_size, subject.size));
    free(content);
    assert_ok(imgtk_context_new(&subject.context, &err));
    assert_ok(open_image(subject.path, subject.format, &subject.image, &err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    imgtk_image_close(subject.image);
    imgtk_context_free(subject.context);
    free(subject.content);
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: conformance FORMAT IMAGE CONTENT [-s SIZE] [-o OPTIONS] [-t CASE] [-x CASE]\n");
    return 2;
}

static int parse(int count, char **words)
{
    if (count < 4)
        return usage();
    subject = (struct subject){ .format = words[1], .path = words[2], .content_path = words[3] };
    for (int i = 4; i < count; i += 2) {
        const char *value = i + 1 < count ? words[i + 1] : NULL;
        if (value && strcmp(words[i], "-s") == 0)
            subject.size = strtoull(value, NULL, 10);
        else if (value && strcmp(words[i], "-o") == 0)
            subject.options = value;
        else if (value && strcmp(words[i], "-t") == 0)
            cmocka_set_test_filter(value);
        else if (value && strcmp(words[i], "-x") == 0)
            cmocka_set_skip_filter(value);
        else
            return usage();
    }
    return 0;
}

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_recognises_it_and_nobody_else_does),
        cmocka_unit_test(probe_looks_at_what_is_there_alone),
        cmocka_unit_test(size_is_the_disks),
        cmocka_unit_test(reads_the_whole_disk),
        cmocka_unit_test(reads_of_every_alignment_and_length),
        cmocka_unit_test(reads_to_the_end),
        cmocka_unit_test(reads_across_every_boundary),
        cmocka_unit_test(requests_past_the_end_are_errors),
        cmocka_unit_test(extents_cover_the_disk_and_tell_the_truth),
        cmocka_unit_test(extents_agree_wherever_they_are_asked),
        cmocka_unit_test(the_map_covers_the_disk_once),
        cmocka_unit_test(threads_read_and_walk_at_once),
        cmocka_unit_test(info_is_told),
        cmocka_unit_test(check_is_clean),
        cmocka_unit_test(truncation_is_an_error_or_harmless),
        cmocka_unit_test(flipped_bytes_never_crash),
        cmocka_unit_test(threads_write_the_same_file_as_one),
    };
    int failed = parse(count, words);
    return failed ? failed : cmocka_run_group_tests_name("conformance", tests, set_up, tear_down);
}
