/* The VDI driver: probing, the parent, and the ops table. */
#include "vdi.h"

static enum imgtk_probe_result vdi_probe(const struct imgtk_probe *probe)
{
    return vdi_has_signature(probe->head, probe->head_length) ? IMGTK_PROBE_YES : IMGTK_PROBE_NO;
}

static uint64_t vdi_size(void *handle)
{
    return ((const struct vdi *)handle)->header.disk_size;
}

static int vdi_identity(void *handle, char out[64], struct imgtk_error *err)
{
    (void)err;
    uuid_to_text(((const struct vdi *)handle)->header.uuid, out);
    return 0;
}

/* VirtualBox keeps the names of parents in its own registry: the file only knows the UUID. */
static int vdi_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    const struct vdi *vdi = handle;
    *out = (struct imgtk_backing){ .names = { NULL } };
    if (vdi->header.type != VDI_DIFFERENCING || (!vdi->parent && vdi->no_references))
        return 0;
    if (!vdi->parent)
        return imgtk_fail(err, IMGTK_ENOTFOUND,
                          "a differencing VDI does not name its parent (UUID %s): name it with the option backing=FILE",
                          vdi->parent_uuid);
    out->names[0] = vdi->parent;
    out->format = "vdi";
    out->identity = vdi->parent_uuid;
    return 0;
}

static const char *const suffixes[] = { "vdi", NULL };

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "vdi",
    .description = "VirtualBox disk images: dynamic and static; differencing ones are read",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_BYTES_MAY_CHANGE,
    .suffixes = suffixes,
    .open_opts = vdi_open_opts,
    .create_opts = vdi_create_opts,
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .size = vdi_size,
    .read = vdi_read,
    .extent = vdi_extent,
    .backing = vdi_backing,
    .identity = vdi_identity,
    .info = vdi_info,
    .check = vdi_check,
    .create = vdi_create,
    .write = vdi_write,
    .zero = vdi_zero,
    .finish = vdi_finish,
    .writer_close = vdi_writer_close,
    .measure = vdi_measure,
    .place = vdi_place,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
