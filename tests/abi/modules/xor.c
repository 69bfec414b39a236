/* A digest for the loader's tests: all bytes, combined with exclusive or. SMALL_TABLE spoils it. */
#include <imgtk/digest.h>
#include <stdlib.h>

static int xor_open(void **handle, struct imgtk_error *err)
{
    *handle = calloc(1, 1);
    return *handle ? 0 : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
}

static int xor_begin(void *handle, struct imgtk_error *err)
{
    (void)err;
    *(uint8_t *)handle = 0;
    return 0;
}

static int xor_update(void *handle, const void *bytes, size_t length, struct imgtk_error *err)
{
    (void)err;
    for (size_t i = 0; i < length; i++)
        *(uint8_t *)handle ^= ((const uint8_t *)bytes)[i];
    return 0;
}

static int xor_end(void *handle, uint8_t *out, struct imgtk_error *err)
{
    (void)err;
    *out = *(const uint8_t *)handle;
    return 0;
}

const struct imgtk_digest *imgtk_digest_v1(void)
{
    static const struct imgtk_digest table = {
#ifdef SMALL_TABLE
        .struct_size = offsetof(struct imgtk_digest, end),
#else
        .struct_size = sizeof(table),
#endif
        .name = "xor",
        .description = "exclusive or",
        .version = "1.0",
        .length = 1,
        .open = xor_open,
        .close = free,
        .begin = xor_begin,
        .update = xor_update,
        .end = xor_end,
    };
    return &table;
}
