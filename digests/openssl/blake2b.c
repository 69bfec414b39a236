#include "evp.h"

enum { LENGTH = 64 };

static int blake2b_open(void **handle, struct imgtk_error *err)
{
    return evp_open("BLAKE2B-512", LENGTH, handle, err);
}

static const struct imgtk_digest blake2b = {
    .struct_size = sizeof(struct imgtk_digest),
    .name = "blake2b",
    .description = "BLAKE2b-512, by OpenSSL",
    .version = IMGTK_VERSION,
    .length = LENGTH,
    .open = blake2b_open,
    .close = evp_close,
    .begin = evp_begin,
    .update = evp_update,
    .end = evp_end,
};

const struct imgtk_digest *imgtk_digest_v1(void)
{
    return &blake2b;
}
