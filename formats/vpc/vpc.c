/* The VHD driver, named "vpc" as everywhere: probing and the ops table. */
#include <string.h>

#include "vpc.h"

/* A good footer in the last 512 bytes, or the last 511. */
static bool good_footer_at_end(const struct imgtk_probe *probe)
{
    if (!probe->tail)
        return false;
    for (size_t size = VPC_FOOTER_SIZE; size >= VPC_OLD_FOOTER_SIZE; size--) {
        uint8_t bytes[VPC_FOOTER_SIZE] = { 0 };
        struct vpc_footer footer;
        if (probe->tail_length < size)
            continue;
        memcpy(bytes, probe->tail + probe->tail_length - size, size);
        if (vpc_footer_parse(bytes, &footer, NULL) == 0)
            return true;
    }
    return false;
}

static bool cookie_at_end(const struct imgtk_probe *probe)
{
    return probe->tail && probe->tail_length >= VPC_FOOTER_SIZE &&
           vpc_footer_has_cookie(probe->tail + probe->tail_length - VPC_FOOTER_SIZE);
}

static enum imgtk_probe_result vpc_probe(const struct imgtk_probe *probe)
{
    if (probe->head_length >= VPC_FOOTER_SIZE && vpc_footer_has_cookie(probe->head))
        return IMGTK_PROBE_YES;
    if (good_footer_at_end(probe))
        return IMGTK_PROBE_YES;
    return cookie_at_end(probe) ? IMGTK_PROBE_MAYBE : IMGTK_PROBE_NO;
}

static uint64_t vpc_size(void *handle)
{
    return ((const struct vpc *)handle)->size;
}

static int vpc_identity(void *handle, char out[64], struct imgtk_error *err)
{
    (void)err;
    uuid_to_text(((const struct vpc *)handle)->footer.uuid, out);
    return 0;
}

static const char *const suffixes[] = { "vhd", NULL };
static const char *const aliases[] = { "vhd", NULL };

static const struct imgtk_driver driver = {
    .struct_size = sizeof(driver),
    .name = "vpc",
    .description = "VHD images: fixed, dynamic and differencing (Virtual PC, Hyper-V, Azure, XenServer)",
    .version = IMGTK_VERSION,
    .flags = IMGTK_DRIVER_PARALLEL | IMGTK_DRIVER_STREAM | IMGTK_DRIVER_BYTES_MAY_CHANGE |
             IMGTK_DRIVER_FIXED_PLACES, /* places: of fixed disks */
    .suffixes = suffixes,
    .aliases = aliases,
    .open_opts = vpc_open_opts,
    .create_opts = vpc_create_opts,
    .probe = vpc_probe,
    .open = vpc_open,
    .close = vpc_close,
    .size = vpc_size,
    .read = vpc_read,
    .extent = vpc_extent,
    .backing = vpc_backing,
    .identity = vpc_identity,
    .info = vpc_info,
    .check = vpc_check,
    .create = vpc_create,
    .write = vpc_write,
    .zero = vpc_zero,
    .finish = vpc_finish,
    .writer_close = vpc_writer_close,
    .measure = vpc_measure,
    .place = vpc_place,
};

const struct imgtk_driver *imgtk_driver_v1(void)
{
    return &driver;
}
