/* The qcow2 driver: probing, opening and the ops table. */
#include "qcow2.h"

static enum imgtk_probe_result qcow2_probe(const struct imgtk_probe *probe)
{
    if (probe->head_length < QCOW2_V2_HEADER_LENGTH || imgtk_be32(probe->head + QCOW2_AT_MAGIC) != QCOW2_MAGIC)
        return IMGTK_PROBE_NO;
    return imgtk_be32(probe->head + QCOW2_AT_VERSION) >= 2 ? IMGTK_PROBE_YES : IMGTK_PROBE_NO;
}

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "qcow2",
    .description = "QEMU copy-on-write images, versions 2 and 3",
    .version = IMGTK_VERSION,
    .probe = qcow2_probe,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
