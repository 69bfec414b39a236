/* The qcow2 writer over memory, judged by a reader of its own that counts every reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../../formats/qcow2/writer.h"
#include "convert/turn.h"
#include "imgtk/image.h"
#include "storage/storage.h"

enum { SIZE = 3 * 1024 * 1024 + 700, UNITS_AT_ONCE = 1 << 18 };

/* ---- Writing ------------------------------------------------------------- */

struct job {
    const char *options;
    uint32_t flags;
    unsigned threads;
};

static void ignore_note(void *context, const char *message)
{
    (void)context, (void)message;
}

/* Noise, words, zeroes and constants, in pieces of no round length. */
static uint8_t *make_disk(void)
{
    uint8_t *disk = calloc(1, SIZE);
    assert_non_null(disk);
    uint32_t state = 1;
    for (size_t i = 0; i < SIZE; i++) {
        state = state * 1664525u + 1013904223u;
        size_t piece = i / 77777 % 5;
        disk[i] = piece == 0 ? (uint8_t)(state >> 24) : piece == 1 ? (uint8_t)"words and words"[i % 15] : piece == 2;
        if (piece == 4 && i / 1000 % 10 == 0)
            disk[i] = (uint8_t)(state >> 24);
    }
    return disk;
}

static bool holds_data(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return true;
    return false;
}

struct crowd {
    void *writer;
    const uint8_t *disk;
    uint64_t step;
    struct turnstile stile;
    atomic_uint next_item;
    atomic_int failed;
};

static int write_item(struct crowd *crowd, unsigned item, struct imgtk_error *err)
{
    struct imgtk_turn turn = { .stile = &crowd->stile, .item = item, .last = true };
    uint64_t offset = item * crowd->step;
    size_t length = (size_t)imgtk_min_u64(crowd->step, SIZE - offset);
    struct imgtk_write write = { .buf = crowd->disk + offset, .length = length, .offset = offset, .turn = &turn };
    int status = holds_data(crowd->disk + offset, length) ? qcow2_write(crowd->writer, &write, err) : 0;
    turn_settle(&turn);
    return status;
}

static void *write_items(void *context)
{
    struct crowd *crowd = context;
    for (unsigned item; (item = atomic_fetch_add(&crowd->next_item, 1)) * crowd->step < SIZE;) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        int status = write_item(crowd, item, &err);
        if (status) {
            atomic_store(&crowd->failed, status);
            turnstile_fail(&crowd->stile);
            break;
        }
    }
    return NULL;
}

static int write_disk(void *writer, uint64_t unit, const uint8_t *disk, unsigned threads)
{
    struct crowd crowd = { .writer = writer, .disk = disk, .step = unit > UNITS_AT_ONCE ? unit : UNITS_AT_ONCE };
    pthread_t others[8];
    turnstile_init(&crowd.stile);
    for (unsigned i = 1; i < threads; i++)
        assert_int_equal(pthread_create(&others[i], NULL, write_items, &crowd), 0);
    write_items(&crowd);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(others[i], NULL);
    turnstile_destroy(&crowd.stile);
    return atomic_load(&crowd.failed);
}

static struct imgtk_opts *parse(const char *options)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = imgtk_opts_new(qcow2_create_opts);
    assert_non_null(opts);
    assert_int_equal(imgtk_opts_parse(opts, "qcow2", options, &err), 0);
    return opts;
}

/* Writes the disk; *status is that of the first call that failed. finish: else the writer is closed instead. */
static void run(const struct job *job, struct imgtk_storage *file, const uint8_t *disk, bool finish, int *status)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_opts *opts = parse(job->options);
    struct imgtk_create args = { .file = file, .size = SIZE, .opts = opts, .flags = job->flags,
                                 .workers = job->threads, .note = ignore_note };
    void *writer = NULL;
    *status = qcow2_create(&args, &writer, &err);
    imgtk_opts_free(opts);
    if (*status)
        return;
    *status = write_disk(writer, args.unit, disk, job->threads);
    if (!*status && finish)
        *status = qcow2_finish(writer, &err);
    qcow2_writer_close(writer);
}

static struct imgtk_storage *memory(void)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_storage *storage = NULL;
    assert_int_equal(imgtk_storage_from_memory(NULL, 0, &storage, &err), 0);
    return storage;
}

static uint8_t *content(struct imgtk_storage *storage, uint64_t *size)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    assert_int_equal(imgtk_storage_size(storage, size, &err), 0);
    uint8_t *bytes = malloc(*size);
    assert_non_null(bytes);
    assert_int_equal(imgtk_storage_pread(storage, bytes, *size, 0, &err), 0);
    return bytes;
}

/* ---- Reading ------------------------------------------------------------- */

struct image {
    uint8_t *bytes;
    uint64_t size;
    struct qcow2_header header;
    struct qcow2_geometry geometry;
    uint64_t *references;    /* per host cluster */
    uint64_t clusters;
    struct imgtk_codec *codec;
};

static void refer(struct image *image, uint64_t offset, uint64_t length)
{
    for (uint64_t i = offset >> image->geometry.cluster_bits;
         i <= (offset + length - 1) >> image->geometry.cluster_bits; i++) {
        assert_true(i < image->clusters);
        image->references[i]++;
    }
}

static void check_cluster(struct image *image, const uint8_t *entry, const uint8_t *expected, size_t length)
{
    uint8_t *cluster = calloc(1, image->geometry.cluster_size);
    uint64_t word = imgtk_be64(entry), offset = word & QCOW2_OFFSET_MASK;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (word & QCOW2_COMPRESSED) {
        struct qcow2_compressed at = qcow2_compressed(&image->geometry, word);
        assert_true(at.offset + at.length <= image->size);
        refer(image, at.offset, at.length);
        assert_int_equal(imgtk_codec_decompress(image->codec, image->bytes + at.offset, at.length, cluster,
                                                image->geometry.cluster_size, &err), 0);
    } else if (word) {
        assert_true(word & QCOW2_COPIED);
        refer(image, offset, image->geometry.cluster_size);
        uint64_t present = imgtk_min_u64(image->geometry.cluster_size, image->size - offset);
        memcpy(cluster, image->bytes + offset, present);
        uint64_t bitmap = image->geometry.extended_l2 ? imgtk_be64(entry + 8) : UINT32_MAX;
        unsigned bits = image->geometry.subcluster_bits;
        for (uint64_t i = 0; image->geometry.extended_l2 && i < 32; i++)
            if (!(bitmap >> i & 1))
                memset(cluster + (i << bits), 0, (size_t)1 << bits);
    }
    assert_memory_equal(cluster, expected, length);
    free(cluster);
}

static void check_tables(struct image *image, const uint8_t *disk)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    refer(image, image->header.l1_offset, image->header.l1_size * sizeof(uint64_t));
    for (uint64_t i = 0; i < image->header.l1_size; i++) {
        uint64_t l2 = imgtk_be64(image->bytes + image->header.l1_offset + i * 8) & QCOW2_OFFSET_MASK;
        if (l2)
            refer(image, l2, cluster_size);
        for (uint64_t j = 0; j < UINT64_C(1) << image->geometry.l2_bits; j++) {
            uint64_t at = ((i << image->geometry.l2_bits) + j) * cluster_size;
            static const uint8_t none[16];
            if (at < SIZE)
                check_cluster(image, l2 ? image->bytes + l2 + j * image->geometry.l2_entry_bytes : none, disk + at,
                              (size_t)imgtk_min_u64(cluster_size, SIZE - at));
        }
    }
}

static void check_refcounts(struct image *image)
{
    const struct qcow2_geometry *geometry = &image->geometry;
    uint64_t table = image->header.refcount_table_offset;
    uint64_t table_bytes = (uint64_t)image->header.refcount_table_clusters << geometry->cluster_bits;
    refer(image, 0, geometry->cluster_size);
    refer(image, table, table_bytes);
    for (uint64_t i = 0; i < table_bytes / 8; i++)
        if (imgtk_be64(image->bytes + table + i * 8))
            refer(image, imgtk_be64(image->bytes + table + i * 8), geometry->cluster_size);
    uint64_t per_block = UINT64_C(1) << geometry->refcount_block_bits;
    for (uint64_t i = 0; i < table_bytes / 8; i++) {
        uint64_t block = imgtk_be64(image->bytes + table + i * 8);
        assert_true(block || i * per_block >= image->clusters);
        for (uint64_t j = 0; block && j < per_block; j++) {
            uint64_t cluster = i * per_block + j;
            assert_int_equal(qcow2_refcount_get(image->bytes + block, j, geometry->refcount_order),
                             cluster < image->clusters ? image->references[cluster] : 0);
        }
    }
}

static void check_image(struct imgtk_storage *file, const uint8_t *disk)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct image image = { .bytes = content(file, &image.size) };
    assert_int_equal(qcow2_header_parse(image.bytes, image.size, &image.header, &err), 0);
    image.geometry = qcow2_header_geometry(&image.header);
    image.clusters = qcow2_clusters(&image.geometry, image.size);
    image.references = calloc(image.clusters, sizeof(uint64_t));
    struct imgtk_codec_pool *pool;
    bool zstd = image.header.compression_type == QCOW2_COMPRESSION_ZSTD;
    assert_int_equal(imgtk_codec_pool_new(zstd ? IMGTK_CODEC_ZSTD : IMGTK_CODEC_DEFLATE, 0, &pool, &err), 0);
    image.codec = imgtk_codec_take(pool);
    check_tables(&image, disk);
    check_refcounts(&image);
    imgtk_codec_give(pool, image.codec);
    imgtk_codec_pool_free(pool);
    free(image.references);
    free(image.bytes);
}

/* ---- Tests --------------------------------------------------------------- */

static const struct job jobs[] = {
    { "cluster_size=512,refcount_bits=1", 0, 1 },
    { "cluster_size=512,refcount_bits=64", 0, 4 },
    { "cluster_size=4096,refcount_bits=8", 0, 4 },
    { "compat=0.10", 0, 4 },
    { "cluster_size=2M,refcount_bits=32", 0, 4 },
    { "extended_l2=on,cluster_size=16k,refcount_bits=4", 0, 4 },
    { "preallocation=metadata,cluster_size=512,refcount_bits=64", 0, 4 },
    { "preallocation=full,extended_l2=on,refcount_bits=2", 0, 4 },
    { "", IMGTK_CREATE_FULL, 4 },
    { "cluster_size=512,refcount_bits=1", IMGTK_CREATE_COMPRESS, 4 },
    { "cluster_size=512,refcount_bits=64", IMGTK_CREATE_COMPRESS, 4 },
    { "cluster_size=4k,refcount_bits=2", IMGTK_CREATE_COMPRESS, 4 },
    { "refcount_bits=4", IMGTK_CREATE_COMPRESS, 4 },
    { "extended_l2=on,compression_type=zstd", IMGTK_CREATE_COMPRESS, 4 },
    { "cluster_size=1k,compression_type=zstd,refcount_bits=8", IMGTK_CREATE_COMPRESS, 1 },
};
enum { JOBS = sizeof(jobs) / sizeof(jobs[0]) };

static void every_reference_is_counted(void **state)
{
    (void)state;
    uint8_t *disk = make_disk();
    for (size_t i = 0; i < JOBS; i++) {
        struct imgtk_storage *file = memory();
        int status;
        run(&jobs[i], file, disk, true, &status);
        assert_int_equal(status, 0);
        check_image(file, disk);
        imgtk_storage_close(file);
    }
    free(disk);
}

static void workers_do_not_matter(void **state)
{
    (void)state;
    uint8_t *disk = make_disk();
    for (size_t i = 0; i < JOBS; i++) {
        uint8_t *bytes[2];
        uint64_t sizes[2];
        for (unsigned j = 0; j < 2; j++) {
            struct job job = { jobs[i].options, jobs[i].flags, j == 0 ? 1 : 8 };
            struct imgtk_storage *file = memory();
            int status;
            run(&job, file, disk, true, &status);
            assert_int_equal(status, 0);
            bytes[j] = content(file, &sizes[j]);
            imgtk_storage_close(file);
        }
        assert_int_equal(sizes[0], sizes[1]);
        assert_memory_equal(bytes[0], bytes[1], sizes[0]);
        free(bytes[0]);
        free(bytes[1]);
    }
    free(disk);
}

static void there_is_no_header_before_the_end(void **state)
{
    (void)state;
    uint8_t *disk = make_disk();
    for (size_t i = 0; i < JOBS; i++) {
        struct imgtk_storage *file = memory();
        int status;
        run(&jobs[i], file, disk, false, &status);
        assert_int_equal(status, 0);
        uint64_t size;
        uint8_t *bytes = content(file, &size);
        assert_false(holds_data(bytes, (size_t)imgtk_min_u64(size, 512)));
        free(bytes);
        imgtk_storage_close(file);
    }
    free(disk);
}

/* ---- A target that fails --------------------------------------------------- */

struct failing {
    struct imgtk_storage *below;
    atomic_uint left; /* writes until the disk is full */
};

static int failing_open(const char *name, uint32_t flags, const struct imgtk_opts *opts, void **handle,
                        struct imgtk_error *err)
{
    (void)name, (void)flags, (void)opts, (void)handle;
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "not opened by name");
}

static void failing_close(void *handle)
{
    (void)handle;
}

static int failing_size(void *handle, uint64_t *out, struct imgtk_error *err)
{
    return imgtk_storage_size(((struct failing *)handle)->below, out, err);
}

static int failing_pread(void *handle, void *buf, size_t length, uint64_t offset, size_t *done, struct imgtk_error *err)
{
    return imgtk_storage_pread_some(((struct failing *)handle)->below, buf, length, offset, done, err);
}

static int spend(struct failing *failing, struct imgtk_error *err)
{
    unsigned left = atomic_load(&failing->left);
    while (left > 0 && !atomic_compare_exchange_weak(&failing->left, &left, left - 1))
        ;
    return left > 0 ? 0 : imgtk_fail(err, IMGTK_ENOSPACE, "no space left");
}

static int failing_pwrite(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    struct failing *failing = handle;
    int status = spend(failing, err);
    return status ? status : imgtk_storage_pwrite(failing->below, buf, length, offset, err);
}

static int failing_truncate(void *handle, uint64_t size, struct imgtk_error *err)
{
    struct failing *failing = handle;
    int status = spend(failing, err);
    return status ? status : imgtk_storage_truncate(failing->below, size, err);
}

static uint32_t failing_flags(void *handle)
{
    (void)handle;
    return IMGTK_STORAGE_WRITABLE | IMGTK_STORAGE_READS_ZERO;
}

static const struct imgtk_storage_ops failing_ops = {
    .struct_size = sizeof(failing_ops), .name = "failing", .description = "full after a while", .version = "1",
    .open = failing_open, .close = failing_close, .size = failing_size, .pread = failing_pread,
    .pwrite = failing_pwrite, .truncate = failing_truncate, .flags = failing_flags,
};

/* The disk is full after n writes, for every n: always an error, never a header. */
static void fill_up(const struct job *job, const uint8_t *disk)
{
    for (unsigned n = 0;; n++) {
        struct failing failing = { .below = memory(), .left = n };
        struct imgtk_storage *file;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        assert_int_equal(storage_wrap(&failing_ops, &failing, "failing", &file, &err), 0);
        int status;
        run(job, file, disk, true, &status);
        uint64_t size;
        uint8_t *bytes = content(failing.below, &size);
        imgtk_storage_close(file);
        imgtk_storage_close(failing.below);
        if (!status) {
            assert_true(n > 4);
            assert_int_equal(imgtk_be32(bytes), QCOW2_MAGIC);
            free(bytes);
            return;
        }
        assert_true(status == IMGTK_ENOSPACE || status == IMGTK_ECANCELLED);
        assert_false(holds_data(bytes, (size_t)imgtk_min_u64(size, 512)));
        free(bytes);
    }
}

static void a_full_disk_leaves_no_image(void **state)
{
    (void)state;
    uint8_t *disk = make_disk();
    fill_up(&(struct job){ "", 0, 4 }, disk);
    fill_up(&(struct job){ "", IMGTK_CREATE_COMPRESS, 2 }, disk);
    fill_up(&(struct job){ "preallocation=metadata,cluster_size=16k", 0, 2 }, disk);
    free(disk);
}

/* ---- Sizes ------------------------------------------------------------------ */

static void sizes_are_those_of_qemu_img_measure(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        uint64_t size, required, fully_allocated;
    } rows[] = { /* qemu-img measure -O qcow2 -o OPTIONS --size SIZE; more where the refcount table has to move */
        { "", 0, 196608, 196608 },
        { "", UINT64_C(1) << 30, 393216, 1074135040 },
        { "", UINT64_C(1) << 44, 2685009920, UINT64_C(17594871054336) },
        { "cluster_size=512,refcount_bits=64", 10 << 20, 339968, 10825728 },
        { "cluster_size=2M,extended_l2=on", UINT64_C(100) << 30, 10485760, UINT64_C(107384668160) },
        { "refcount_bits=1", UINT64_C(1) << 40, 136577024, UINT64_C(1099648204800) },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        struct imgtk_opts *opts = parse(rows[i].options);
        struct imgtk_create args = { .size = rows[i].size, .opts = opts, .flags = IMGTK_CREATE_EMPTY,
                                     .workers = 1, .note = ignore_note };
        struct imgtk_measure measure = { 0 };
        assert_int_equal(qcow2_measure(&args, &measure, &err), 0);
        assert_int_equal(measure.required, rows[i].required);
        assert_int_equal(measure.fully_allocated, rows[i].fully_allocated);
        assert_false(measure.upper_bound);
        imgtk_opts_free(opts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reference_is_counted),
        cmocka_unit_test(workers_do_not_matter),
        cmocka_unit_test(there_is_no_header_before_the_end),
        cmocka_unit_test(a_full_disk_leaves_no_image),
        cmocka_unit_test(sizes_are_those_of_qemu_img_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
