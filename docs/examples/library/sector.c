/* sector IMAGE NUMBER: prints 512 bytes of the disk, wherever in the chain of IMAGE and its backing files they lie. */
#include <imgtk/image.h>
#include <stdio.h>
#include <stdlib.h>

enum { SECTOR = 512 };

static void print(const uint8_t *bytes)
{
    for (size_t i = 0; i < SECTOR; i++)
        printf("%02x%c", (unsigned)bytes[i], i % 16 == 15 ? '\n' : ' ');
}

static int read_sector(struct imgtk_context *context, const char *name, uint64_t number, struct imgtk_error *err)
{
    struct imgtk_image *image;
    uint8_t bytes[SECTOR];
    int status = imgtk_image_open(context, name, NULL, &image, err);
    if (status)
        return status;
    /* A range beyond the disk is an error, which says so. */
    status = imgtk_image_read(image, bytes, sizeof(bytes), number * SECTOR, err);
    if (!status)
        print(bytes);
    imgtk_image_close(image);
    return status;
}

int main(int count, char **words)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_context *context = NULL;
    if (count != 3) {
        fprintf(stderr, "usage: sector IMAGE NUMBER\n");
        return 2;
    }
    int status = imgtk_context_new(&context, &err);
    if (!status)
        status = read_sector(context, words[1], strtoull(words[2], NULL, 0), &err);
    if (status)
        fprintf(stderr, "sector: %s\n", err.message);
    imgtk_context_free(context);
    return status ? 1 : 0;
}
