#include "fuzz.h"

#include <string.h>

#include "imgtk/bytes.h"
#include "imgtk/image.h"

int fuzz_judge(int status, const struct imgtk_error *err)
{
    FUZZ_REQUIRE(status <= 0);
    if (status == 0)
        return 0;
    FUZZ_REQUIRE(err->status == status);
    FUZZ_REQUIRE(err->message[0] != '\0');
    for (const char *at = err->message; *at; at++)
        FUZZ_REQUIRE((unsigned char)*at >= ' ');
    return status;
}

uint64_t fuzz_take(struct fuzz_input *input, unsigned bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes && input->size > 0; i++) {
        number |= (uint64_t)*input->data++ << (8 * i);
        input->size--;
    }
    return number;
}

uint8_t *fuzz_take_copy(struct fuzz_input *input, size_t length)
{
    size_t have = input->size < length ? input->size : length;
    uint8_t *copy = calloc(1, length ? length : 1);
    FUZZ_REQUIRE(copy);
    if (have)
        memcpy(copy, input->data, have);
    input->data += have;
    input->size -= have;
    return copy;
}

struct imgtk_storage *fuzz_storage(const struct fuzz_input *input)
{
    struct imgtk_storage *storage = NULL;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    FUZZ_REQUIRE(imgtk_storage_from_memory(input->data, input->size, &storage, &err) == 0);
    return storage;
}
