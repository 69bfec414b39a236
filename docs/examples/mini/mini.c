/*
 * mini: a small but complete format, as an example of a module of one's own.
 *
 * The file is a header, a table with one 32-bit number per block of the disk, and the blocks that hold data:
 *
 *    0   8  "MINIDISK"
 *    8   4  version, 1
 *   12   4  zero
 *   16   8  size of the disk in bytes
 *   24   -  table: 0 for a block of zeroes, else 1 + the number of the block in the data area
 *
 * The data area begins at the first multiple of the block size behind the table. All numbers are little-endian.
 */
#include <imgtk/bytes.h>
#include <imgtk/driver.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_SIZE = 24,
    VERSION = 1,
    BLOCK_SIZE = 1 << 16,
    MAX_BLOCKS = 1 << 20 /* a table of 4 MiB, for a disk of 64 GiB */
};

static const char magic[8] = { 'M', 'I', 'N', 'I', 'D', 'I', 'S', 'K' };

/* One image, read or written. */
struct mini {
    struct imgtk_storage *file;
    uint64_t size;        /* of the disk */
    uint64_t data_offset; /* of the data area in the file */
    uint32_t block_count; /* of the disk */
    uint32_t used_count;  /* writing: blocks in the data area; guarded by the turns */
    uint32_t *table;      /* in the host's byte order */
};

/* ---- Layout ---------------------------------------------------------------- */

static void lay_out(struct mini *mini, uint64_t size)
{
    mini->size = size;
    mini->block_count = (uint32_t)imgtk_div_round_up(size, BLOCK_SIZE);
    mini->data_offset = imgtk_round_up(HEADER_SIZE + (uint64_t)mini->block_count * sizeof(uint32_t), BLOCK_SIZE);
}

static int check_size(uint64_t size, struct imgtk_error *err)
{
    uint64_t max = (uint64_t)MAX_BLOCKS * BLOCK_SIZE;
    if (size > max) {
        return imgtk_fail(err, IMGTK_ELIMIT, "mini: size %" PRIu64 " exceeds the limit of %" PRIu64, size, max);
    }
    return 0;
}

/* Bytes in, values out; nothing is allocated before this succeeds. */
static int parse_header(const uint8_t bytes[HEADER_SIZE], struct mini *mini, struct imgtk_error *err)
{
    if (memcmp(bytes, magic, sizeof(magic)) != 0) {
        return imgtk_fail(err, IMGTK_EINVAL, "mini: the file does not begin with MINIDISK");
    }
    if (imgtk_le32(bytes + 8) != VERSION) {
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "mini: version %" PRIu32 ", not %d", imgtk_le32(bytes + 8),
                          VERSION);
    }
    int rc = check_size(imgtk_le64(bytes + 16), err);
    if (rc == 0) {
        lay_out(mini, imgtk_le64(bytes + 16));
    }
    return rc;
}

/* ---- Reading ---------------------------------------------------------------- */

/* Every entry must point into the file, so that no later read has to look. */
static int check_table(const struct mini *mini, uint64_t file_size, struct imgtk_error *err)
{
    for (uint32_t i = 0; i < mini->block_count; i++) {
        uint64_t end = mini->data_offset + (uint64_t)mini->table[i] * BLOCK_SIZE;
        if (mini->table[i] != 0 && end > file_size) {
            return imgtk_fail(err, IMGTK_ECORRUPT,
                              "mini: block %" PRIu32 " ends at byte %" PRIu64 ", the file at %" PRIu64, i, end,
                              file_size);
        }
    }
    return 0;
}

static int read_table(struct mini *mini, struct imgtk_error *err)
{
    uint64_t file_size, length = (uint64_t)mini->block_count * sizeof(uint32_t);
    int rc = imgtk_storage_size(mini->file, &file_size, err);
    if (rc != 0) {
        return rc;
    }
    /* What is allocated is bounded by what the file holds, whatever the header claims. */
    if (!imgtk_range_fits(HEADER_SIZE, length, file_size)) {
        return imgtk_fail(err, IMGTK_ECORRUPT, "mini: the table has %" PRIu64 " bytes, the whole file %" PRIu64,
                          length, file_size);
    }
    mini->table = malloc(length + 1); /* + 1: an empty disk has no table */
    if (mini->table == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the table");
    }
    rc = imgtk_storage_pread(mini->file, mini->table, length, HEADER_SIZE, err);
    for (uint32_t i = 0; rc == 0 && i < mini->block_count; i++) {
        mini->table[i] = imgtk_le32(&mini->table[i]);
    }
    return rc == 0 ? check_table(mini, file_size, err) : rc;
}

static enum imgtk_probe_result mini_probe(const struct imgtk_probe *probe)
{
    bool ours = probe->head_length >= HEADER_SIZE && memcmp(probe->head, magic, sizeof(magic)) == 0;
    return ours ? IMGTK_PROBE_YES : IMGTK_PROBE_NO;
}

static void mini_close(void *handle)
{
    struct mini *mini = handle;
    free(mini->table);
    free(mini);
}

static int mini_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    uint8_t header[HEADER_SIZE];
    struct mini *mini = calloc(1, sizeof(*mini));
    if (mini == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    mini->file = args->file;
    int rc = imgtk_storage_pread(mini->file, header, sizeof(header), 0, err);
    if (rc == 0) {
        rc = parse_header(header, mini, err);
    }
    if (rc == 0) {
        rc = read_table(mini, err);
    }
    if (rc != 0) {
        mini_close(mini);
        return rc;
    }
    *handle = mini;
    return 0;
}

static uint64_t mini_size(void *handle)
{
    return ((const struct mini *)handle)->size;
}

/* A run of equal blocks: of zeroes, or lying one behind the other in the file. Core clips it and merges the next. */
static int mini_extent(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out,
                       struct imgtk_error *err)
{
    const struct mini *mini = handle;
    uint32_t block = (uint32_t)(offset / BLOCK_SIZE), first = mini->table[block], count = 1;
    (void)err;
    while ((uint64_t)count * BLOCK_SIZE < length && block + count < mini->block_count &&
           mini->table[block + count] == (first == 0 ? 0 : first + count)) {
        count++;
    }
    out->length = imgtk_min_u64((uint64_t)(block + count) * BLOCK_SIZE, mini->size) - offset;
    if (first == 0) {
        out->kind = IMGTK_EXTENT_ZERO;
        out->flags = IMGTK_EXTENT_UNALLOCATED;
        return 0;
    }
    out->kind = IMGTK_EXTENT_DATA;
    out->flags = IMGTK_EXTENT_PLAIN; /* the kernel may copy from there */
    out->file = mini->file;
    out->host_offset = mini->data_offset + (uint64_t)(first - 1) * BLOCK_SIZE + offset % BLOCK_SIZE;
    return 0;
}

static int mini_read(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err)
{
    const struct mini *mini = handle;
    uint8_t *to = buf;
    while (length > 0) {
        struct imgtk_extent extent;
        int rc = mini_extent(handle, offset, length, &extent, err);
        size_t piece = (size_t)imgtk_min_u64(length, extent.length);
        if (extent.kind == IMGTK_EXTENT_ZERO) {
            memset(to, 0, piece);
        } else {
            rc = imgtk_storage_pread(mini->file, to, piece, extent.host_offset, err);
        }
        if (rc != 0) {
            return rc;
        }
        to += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}

static int mini_info(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err)
{
    const struct mini *mini = handle;
    uint32_t used = 0;
    (void)err;
    for (uint32_t i = 0; i < mini->block_count; i++) {
        used += mini->table[i] != 0;
    }
    out->cluster_size = BLOCK_SIZE;
    imgtk_info_number(out->specific, "used-blocks", used);
    return 0;
}

/* ---- Writing ----------------------------------------------------------------- */

static int mini_create(struct imgtk_create *args, void **writer, struct imgtk_error *err)
{
    int rc = check_size(args->size, err);
    if (rc != 0) {
        return rc;
    }
    struct mini *mini = calloc(1, sizeof(*mini));
    if (mini == NULL) {
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    }
    mini->file = args->file;
    lay_out(mini, args->size);
    mini->table = calloc((size_t)mini->block_count + 1, sizeof(uint32_t));
    if (mini->table == NULL) {
        mini_close(mini);
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the table");
    }
    args->unit = BLOCK_SIZE;
    *writer = mini;
    return 0;
}

/* The blocks of one write lie side by side; which ones they are is decided in guest order, whoever comes first. */
static int mini_write(void *writer, const struct imgtk_write *write, struct imgtk_error *err)
{
    struct mini *mini = writer;
    uint32_t block = (uint32_t)(write->offset / BLOCK_SIZE);
    uint32_t count = (uint32_t)imgtk_div_round_up(write->length, BLOCK_SIZE);
    int rc = imgtk_turn_begin(write->turn, err);
    if (rc != 0) {
        return rc;
    }
    uint32_t first = mini->used_count;
    mini->used_count += count;
    imgtk_turn_end(write->turn);
    for (uint32_t i = 0; i < count; i++) {
        mini->table[block + i] = first + i + 1;
    }
    uint64_t at = mini->data_offset + (uint64_t)first * BLOCK_SIZE;
    return imgtk_storage_pwrite(mini->file, write->buf, write->length, at, err);
}

/* The header goes last: without it nothing takes the file for an image. */
static int mini_finish(void *writer, struct imgtk_error *err)
{
    struct mini *mini = writer;
    uint8_t header[HEADER_SIZE] = { 0 };
    memcpy(header, magic, sizeof(magic));
    imgtk_put_le32(header + 8, VERSION);
    imgtk_put_le64(header + 16, mini->size);
    for (uint32_t i = 0; i < mini->block_count; i++) {
        imgtk_put_le32(&mini->table[i], mini->table[i]);
    }
    /* The last block of the disk may have been written in part: the file ends with whole blocks. */
    int rc = imgtk_storage_truncate(mini->file, mini->data_offset + (uint64_t)mini->used_count * BLOCK_SIZE, err);
    if (rc == 0) {
        rc = imgtk_storage_pwrite(mini->file, mini->table, mini->block_count * sizeof(uint32_t), HEADER_SIZE, err);
    }
    return rc == 0 ? imgtk_storage_pwrite(mini->file, header, sizeof(header), 0, err) : rc;
}

/* ---- The driver --------------------------------------------------------------- */

static const char *const suffixes[] = { "mini", NULL };

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "mini",
    .description = "a small example",
    .version = "1.0",
    .flags = IMGTK_DRIVER_PARALLEL,
    .suffixes = suffixes,
    .probe = mini_probe,
    .open = mini_open,
    .close = mini_close,
    .size = mini_size,
    .read = mini_read,
    .extent = mini_extent,
    .info = mini_info,
    .create = mini_create,
    .write = mini_write,
    .finish = mini_finish,
    .writer_close = mini_close,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
