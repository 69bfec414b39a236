/* The qcow2 driver: probing, opening and the ops table. */
#include "qcow2.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"
#include "scratch.h"

/* Of any version: an image that open() refuses must not be taken for raw instead. */
static enum imgtk_probe_result qcow2_probe(const struct imgtk_probe *probe)
{
    bool magic = probe->head_length >= 4 && imgtk_be32(probe->head + QCOW2_AT_MAGIC) == QCOW2_MAGIC;
    return magic ? IMGTK_PROBE_YES : IMGTK_PROBE_NO;
}

/* ---- Opening, step by step ------------------------------------------------- */

static int ask_size(struct qcow2 *image, struct imgtk_error *err)
{
    if (!(imgtk_storage_flags(image->file) & IMGTK_STORAGE_SEQUENTIAL))
        return imgtk_storage_size(image->file, &image->file_size, err);
    image->file_size = QCOW2_NO_SIZE;
    return 0;
}

/* A check tells of tables outside the file, and of what is wrong besides. */
static int check_tables(const struct qcow2 *image, struct imgtk_error *err)
{
    return image->for_check ? 0 : qcow2_header_check_file(&image->header, image->file_size, err);
}

static int read_header(struct qcow2 *image, struct imgtk_error *err)
{
    uint8_t bytes[QCOW2_FULL_HEADER_LENGTH];
    size_t length;
    int status = ask_size(image, err);
    if (status == 0)
        status = imgtk_storage_pread_some(image->file, bytes, sizeof(bytes), 0, &length, err);
    if (status == 0)
        status = qcow2_header_parse(bytes, length, &image->header, err);
    if (status == 0)
        status = qcow2_extensions_read(image->file, &image->header, image->file_size, &image->extensions, err);
    if (status == 0)
        status = qcow2_header_validate(&image->header, err);
    if (status == 0 && image->extensions.crypto)
        status = imgtk_fail(err, IMGTK_ECORRUPT, "an encryption header in an image that is not encrypted");
    return status == 0 ? check_tables(image, err) : status;
}

static int read_backing_name(struct qcow2 *image, struct imgtk_error *err)
{
    const struct qcow2_header *header = &image->header;
    if (header->backing_offset == 0)
        return 0;
    int status = imgtk_storage_pread(image->file, image->backing_name, header->backing_length, header->backing_offset,
                                     err);
    if (status != 0)
        return imgtk_fail_prefix(err, "backing file name");
    if (strlen(image->backing_name) != header->backing_length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "backing file name holds a NUL byte");
    return 0;
}

static int open_data_file(struct qcow2 *image, const struct imgtk_open *args, struct imgtk_error *err)
{
    if (!(image->header.incompatible & QCOW2_INCOMPAT_DATA_FILE)) {
        image->data_file = image->file;
        image->data_size = image->file_size;
        return 0;
    }
    if (image->extensions.data_file[0] == '\0')
        return imgtk_fail(err, IMGTK_ECORRUPT, "the image has an external data file but does not name it");
    if (args->flags & IMGTK_OPEN_NO_REFERENCES)
        return 0;
    uint32_t flags = args->flags & IMGTK_OPEN_WRITABLE ? IMGTK_STORAGE_WRITABLE : 0;
    int status = imgtk_reference_open(args->refs, image->extensions.data_file, flags, &image->data_file, err);
    return status == 0 ? imgtk_storage_size(image->data_file, &image->data_size, err) : status;
}

static int choose_state(struct qcow2 *image, const char *wanted, struct imgtk_error *err)
{
    struct qcow2_snapshot state = {
        .l1_offset = image->header.l1_offset, .l1_size = image->header.l1_size, .disk_size = image->header.size,
    };
    if (wanted) {
        int status = qcow2_snapshot_find(image, wanted, &state, err);
        if (status == 0 && qcow2_snapshot_validate(image, &state, err) != 0)
            status = imgtk_fail_prefix(err, "snapshot '%s'", wanted);
        if (status != 0)
            return status;
    }
    image->size = state.disk_size;
    image->l1_offset = state.l1_offset;
    image->l1_bytes = (uint64_t)state.l1_size * sizeof(uint64_t);
    image->l1_entries = qcow2_l1_entries(&image->geometry, state.disk_size);
    return 0;
}

/* Without the table there is nothing to be read; who checks the image is told why. */
static int do_without_l1(struct qcow2 *image)
{
    image->l1_entries = 0;
    image->size = 0;
    return 0;
}

static int load_l1(struct qcow2 *image, struct imgtk_error *err)
{
    if (image->l1_entries == 0)
        return 0;
    if (image->for_check && (image->l1_offset == 0 ||
                             !imgtk_range_fits(image->l1_offset, image->l1_bytes, image->file_size)))
        return do_without_l1(image);
    if (image->l1_offset == 0)
        return imgtk_fail(err, IMGTK_ECORRUPT, "L1 table lies at 0x0, within the header");
    size_t bytes = (size_t)image->l1_entries * sizeof(uint64_t); /* within the file: checked */
    image->l1 = malloc(bytes);
    if (!image->l1)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an L1 table of %zu bytes", bytes);
    if (imgtk_storage_pread(image->file, image->l1, bytes, image->l1_offset, err) != 0)
        return imgtk_fail_prefix(err, "L1 table");
    for (uint64_t i = 0; i < image->l1_entries; i++)
        image->l1[i] = imgtk_be64(&image->l1[i]);
    return 0;
}

static int open_codecs(struct qcow2 *image, struct imgtk_error *err)
{
    enum imgtk_codec_kind kind =
        image->header.compression_type == QCOW2_COMPRESSION_ZSTD ? IMGTK_CODEC_ZSTD : IMGTK_CODEC_DEFLATE;
    return qcow2_scratch_pool_new(kind, (size_t)image->geometry.cluster_size, &image->scratch, err);
}

static int load_state(struct qcow2 *image, const char *snapshot, struct imgtk_error *err)
{
    int status = choose_state(image, snapshot, err);
    if (status == 0)
        status = load_l1(image, err);
    if (status == 0)
        status = qcow2_cache_open(image, err);
    return status == 0 ? open_codecs(image, err) : status;
}

static int open_image(struct qcow2 *image, const struct imgtk_open *args, struct imgtk_error *err)
{
    int status = read_header(image, err);
    if (status == 0)
        status = read_backing_name(image, err);
    if (status == 0) {
        image->geometry = qcow2_header_geometry(&image->header);
        status = open_data_file(image, args, err);
    }
    return status == 0 ? load_state(image, args->snapshot, err) : status;
}

static void forget(struct qcow2 *image)
{
    qcow2_scratch_pool_free(image->scratch);
    imgtk_cache_free(image->l2_slices);
    free(image->l1);
    image->scratch = NULL;
    image->l2_slices = NULL;
    image->l1 = NULL;
}

int qcow2_reload(struct qcow2 *image, struct imgtk_error *err)
{
    forget(image);
    memset(image->backing_name, 0, sizeof(image->backing_name));
    atomic_store(&image->preallocation, QCOW2_PREALLOCATION_UNKNOWN);
    int status = read_header(image, err);
    if (status == 0)
        status = read_backing_name(image, err);
    if (status == 0 && image->data_file)
        status = imgtk_storage_size(image->data_file, &image->data_size, err);
    return status == 0 ? load_state(image, NULL, err) : status;
}

static void qcow2_close(void *handle)
{
    struct qcow2 *image = handle;
    qcow2_edit_free(image->edit);
    forget(image);
    if (image->data_file != image->file)
        imgtk_storage_close(image->data_file);
    free(image);
}

static int qcow2_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    struct qcow2 *image = calloc(1, sizeof(*image));
    if (!image)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for an image");
    image->file = args->file;
    image->writable = args->flags & IMGTK_OPEN_WRITABLE;
    image->is_snapshot = args->snapshot;
    image->for_check = args->flags & IMGTK_OPEN_CHECK;
    int status = open_image(image, args, err);
    if (status != 0) {
        qcow2_close(image);
        return status;
    }
    *handle = image;
    return 0;
}

/* ---- Small answers ------------------------------------------------------------ */

static uint64_t qcow2_size(void *handle)
{
    return ((const struct qcow2 *)handle)->size;
}

static int qcow2_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    (void)err;
    const struct qcow2 *image = handle;
    if (image->backing_name[0] == '\0')
        return 0;
    out->names[0] = image->backing_name;
    out->format = image->extensions.backing_format[0] != '\0' ? image->extensions.backing_format : NULL;
    return 0;
}

static const char *const suffixes[] = { "qcow2", NULL };

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "qcow2",
    .description = "QEMU copy-on-write images, versions 2 and 3",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_COMPRESS | IMGTK_DRIVER_DROPS_ZEROES |
             IMGTK_DRIVER_RESUME | IMGTK_DRIVER_STREAM_READ | IMGTK_DRIVER_BYTES_MAY_CHANGE,
    .suffixes = suffixes,
    .create_opts = qcow2_create_opts,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .size = qcow2_size,
    .read = qcow2_read,
    .extent = qcow2_extent,
    .backing = qcow2_backing,
    .info = qcow2_info,
    .check = qcow2_check,
    .in_order = qcow2_in_order,
    .create = qcow2_create,
    .write = qcow2_write,
    .zero = qcow2_zero,
    .finish = qcow2_finish,
    .writer_close = qcow2_writer_close,
    .measure = qcow2_measure,
    .place = qcow2_place,
    .edit_begin = qcow2_edit_begin,
    .edit_write = qcow2_edit_write,
    .edit_zero = qcow2_edit_zero,
    .edit_empty = qcow2_edit_empty,
    .edit_resize = qcow2_edit_resize,
    .edit_backing = qcow2_edit_backing,
    .edit_snapshot = qcow2_edit_snapshot,
    .edit_commit = qcow2_edit_commit,
    .edit_allocate = qcow2_edit_allocate_behind,
    .prepare = qcow2_prepare,
    .write_prepared = qcow2_write_prepared,
    .discard = qcow2_discard,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
