#include "evp.h"

enum { LENGTH = 32 };

static int sha256_open(void **handle, struct imgtk_error *err)
{
    return evp_open("SHA2-256", LENGTH, handle, err);
}

static const struct imgtk_digest sha256 = {
    .struct_size = sizeof(struct imgtk_digest),
    .name = "sha256",
    .description = "SHA-256, by OpenSSL",
    .version = IMGTK_VERSION,
    .length = LENGTH,
    .open = sha256_open,
    .close = evp_close,
    .begin = evp_begin,
    .update = evp_update,
    .end = evp_end,
};

const struct imgtk_digest *imgtk_digest_v1(void)
{
    return &sha256;
}
