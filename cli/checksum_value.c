#include "checksum_value.h"

#include "output.h"

void checksum_format(const struct imgtk_digest_value *digest, char out[CHECKSUM_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < digest->length; i++) {
        *out++ = digits[digest->bytes[i] >> 4];
        *out++ = digits[digest->bytes[i] & 15];
    }
    *out = '\0';
}

void checksum_print(FILE *to, const struct imgtk_digest_value *digest, const char *name)
{
    char text[CHECKSUM_TEXT];
    checksum_format(digest, text);
    fprintf(to, "%s  ", text);
    cli_put_text(to, name);
    fputc('\n', to);
}
