/* The vmdk driver: recognising and opening images, and the ops table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "vmdk.h"

#define PIECE_CACHE_BYTES (8u << 20)

static enum imgtk_probe_result vmdk_probe(const struct imgtk_probe *probe)
{
    if (probe->head_length >= 8) {
        uint32_t version = imgtk_le32(probe->head + 4);
        if (imgtk_le32(probe->head) == VMDK_HOSTED_MAGIC)
            return version <= VMDK_HOSTED_MAX_VERSION ? IMGTK_PROBE_YES : IMGTK_PROBE_MAYBE;
        if (imgtk_le32(probe->head) == VMDK_COWD_MAGIC)
            return version == 1 ? IMGTK_PROBE_YES : IMGTK_PROBE_MAYBE;
        if (imgtk_le64(probe->head) == VMDK_SE_MAGIC)
            return IMGTK_PROBE_YES;
    }
    return vmdk_descriptor_probe(probe->head, probe->head_length);
}

/* ---- Opening ---------------------------------------------------------------- */

static int read_descriptor(struct vmdk_image *image, uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    if (length > VMDK_MAX_DESCRIPTOR)
        return imgtk_fail(err, IMGTK_ELIMIT, "the descriptor has %llu bytes; the limit is %u",
                          (unsigned long long)length, VMDK_MAX_DESCRIPTOR);
    uint8_t *bytes = malloc(length ? length : 1);
    if (!bytes)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for a descriptor of %llu bytes", (unsigned long long)length);
    int status = imgtk_storage_pread(image->file, bytes, length, offset, err);
    if (!status)
        status = vmdk_descriptor_parse(bytes, length, &image->descriptor, err);
    free(bytes);
    return status;
}

/* An extent without its descriptor: what it lacks may be in a parent that is not known, so it is for check alone. */
static int open_lone_extent(struct vmdk_image *image, const struct imgtk_open *args, const struct vmdk_sparse *sparse,
                            struct imgtk_error *err)
{
    if (!(args->flags & IMGTK_OPEN_CHECK))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "the file is one extent of an image; open the image's descriptor "
                          "file instead");
    image->descriptor.cid = image->descriptor.parent_cid = VMDK_CID_NONE;
    image->descriptor.create_type = "";
    return vmdk_extents_open(image, args, sparse, err);
}

static int open_sparse(struct vmdk_image *image, const struct imgtk_open *args, uint64_t file_size,
                       enum vmdk_sparse_format format, struct imgtk_error *err)
{
    struct vmdk_sparse sparse;
    int status = vmdk_sparse_read(image->file, file_size, format, &sparse, err);
    if (status)
        return status;
    if (sparse.descriptor_length == 0)
        return open_lone_extent(image, args, &sparse, err);
    status = read_descriptor(image, sparse.descriptor_offset, sparse.descriptor_length, err);
    if (status)
        return status;
    return vmdk_extents_open(image, args, sparse.descriptor_only ? NULL : &sparse, err);
}

static int open_text(struct vmdk_image *image, const struct imgtk_open *args, uint64_t file_size,
                     struct imgtk_error *err)
{
    int status = read_descriptor(image, 0, file_size, err);
    return status ? status : vmdk_extents_open(image, args, NULL, err);
}

/* Chooses by the first bytes. */
static int open_any(struct vmdk_image *image, const struct imgtk_open *args, struct imgtk_error *err)
{
    uint64_t file_size = 0;
    uint8_t magic[8] = { 0 };
    size_t done = 0;
    int status = imgtk_storage_size(image->file, &file_size, err);
    if (!status)
        status = imgtk_storage_pread_some(image->file, magic, sizeof(magic), 0, &done, err);
    if (status)
        return status;
    if (imgtk_le32(magic) == VMDK_HOSTED_MAGIC)
        return open_sparse(image, args, file_size, VMDK_HOSTED, err);
    if (imgtk_le32(magic) == VMDK_COWD_MAGIC)
        return open_sparse(image, args, file_size, VMDK_COWD, err);
    if (imgtk_le64(magic) == VMDK_SE_MAGIC)
        return open_sparse(image, args, file_size, VMDK_SESPARSE, err);
    return open_text(image, args, file_size, err);
}

static int open_helpers(struct vmdk_image *image, struct imgtk_error *err)
{
    bool sparse = false, compressed = false;
    for (size_t i = 0; i < image->extent_count; i++) {
        sparse = sparse || vmdk_is_sparse(&image->extents[i]);
        compressed = compressed || image->extents[i].sparse.compressed;
    }
    int status = 0;
    if (sparse)
        status = imgtk_cache_new(VMDK_PIECE_GRAINS * sizeof(uint64_t), PIECE_CACHE_BYTES, vmdk_piece_load, image,
                                 &image->pieces, err);
    if (!status && compressed)
        status = imgtk_codec_pool_new(IMGTK_CODEC_ZLIB, 0, &image->codecs, err);
    return status;
}

static void vmdk_close(void *handle)
{
    struct vmdk_image *image = handle;
    if (image->pieces)
        imgtk_cache_free(image->pieces);
    if (image->codecs)
        imgtk_codec_pool_free(image->codecs);
    vmdk_extents_close(image);
    vmdk_descriptor_free(&image->descriptor);
    free(image);
}

static int vmdk_open(const struct imgtk_open *args, void **handle, struct imgtk_error *err)
{
    if (args->snapshot)
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "vmdk images have no internal snapshots");
    struct vmdk_image *image = calloc(1, sizeof(*image));
    if (!image)
        return imgtk_fail(err, IMGTK_ENOMEM, "no memory for an image");
    image->file = args->file;
    int status = open_any(image, args, err);
    if (!status)
        status = open_helpers(image, err);
    if (status) {
        vmdk_close(image);
        return status;
    }
    snprintf(image->parent_identity, sizeof(image->parent_identity), "%08x", image->descriptor.parent_cid);
    *handle = image;
    return 0;
}

static uint64_t vmdk_size(void *handle)
{
    return ((struct vmdk_image *)handle)->size;
}

/* ---- The chain --------------------------------------------------------------- */

static int vmdk_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    struct vmdk_image *image = handle;
    const char *name = image->descriptor.parent_name;
    (void)err;
    memset(out, 0, sizeof(*out));
    if (!name || image->descriptor.parent_cid == VMDK_CID_NONE)
        return 0;
    out->names[0] = name;
    /* The hint is where the parent was once; it usually moves together with its child. */
    const char *last = strrchr(name, '/') ? strrchr(name, '/') : strrchr(name, '\\');
    if (last && last[1])
        out->names[1] = last + 1;
    out->format = "vmdk";
    out->identity = image->parent_identity;
    return 0;
}

static int vmdk_identity(void *handle, char out[64], struct imgtk_error *err)
{
    const struct vmdk_image *image = handle;
    (void)err;
    out[0] = '\0';
    if (image->descriptor.has_cid)
        snprintf(out, 64, "%08x", image->descriptor.cid);
    return 0;
}

static const char *const suffixes[] = { "vmdk", NULL };

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "vmdk",
    .description = "VMware virtual disk",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_COMPRESS | IMGTK_DRIVER_DROPS_ZEROES |
             IMGTK_DRIVER_BYTES_MAY_CHANGE,
    .suffixes = suffixes,
    .create_opts = vmdk_create_opts,
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .size = vmdk_size,
    .read = vmdk_read,
    .extent = vmdk_extent,
    .backing = vmdk_backing,
    .identity = vmdk_identity,
    .info = vmdk_info,
    .check = vmdk_check,
    .create = vmdk_create,
    .write = vmdk_write,
    .zero = vmdk_zero,
    .finish = vmdk_finish,
    .writer_close = vmdk_writer_close,
    .measure = vmdk_measure,
    .place = vmdk_place,
    .prepare = vmdk_prepare,
    .write_prepared = vmdk_write_prepared,
    .discard = vmdk_discard,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
