/*
 * Any bytes, opened by every driver in turn: described, mapped, read, checked
 * and converted to nowhere. What a map says about a range must be what reading
 * it gives.
 */
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "imgtk/bytes.h"
#include "imgtk/info.h"
#include "imgtk/jobs.h"

enum {
    MAX_EXTENTS = 512,           /* looked at of one image */
    MAX_READ = 64 << 10,         /* bytes of one extent */
    MAX_CONVERTED = 4 << 20      /* bytes of a disk that is converted */
};

static struct imgtk_context *context;
static uint8_t guest[MAX_READ], host[MAX_READ];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    context = fuzz_context();
    return 0;
}

static void describe(struct imgtk_image *image)
{
    struct imgtk_layer_info info = { 0 };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (fuzz_judge(imgtk_layer_describe(imgtk_image_layer(image, 0), &info, &err), &err) != 0)
        return;
    char *json = imgtk_info_json(info.specific);
    FUZZ_REQUIRE(json);
    free(json);
    imgtk_info_free(info.specific);
    imgtk_info_free(info.snapshots);
}

static void read_extent(struct imgtk_image *image, const struct imgtk_chain_extent *found)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    const struct imgtk_extent *extent = &found->extent;
    size_t length = (size_t)imgtk_min_u64(extent->length, sizeof(guest)), done = 0;
    if (fuzz_judge(imgtk_image_read(image, guest, length, found->start, &err), &err) != 0)
        return;
    if (extent->kind == IMGTK_EXTENT_ZERO)
        memset(host, 0, length);
    else if (!(extent->flags & IMGTK_EXTENT_PLAIN) ||
             imgtk_storage_pread_some(extent->file, host, length, extent->host_offset, &done, &err) != 0 || done < length)
        return;
    FUZZ_REQUIRE(memcmp(guest, host, length) == 0);
}

static void map(struct imgtk_image *image)
{
    struct imgtk_walk *walk = NULL;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_chain_extent found;
    uint64_t size = imgtk_image_size(image), offset = 0;
    FUZZ_REQUIRE(imgtk_walk_new(image, &walk, &err) == 0);
    for (unsigned i = 0; i < MAX_EXTENTS && offset < size; i++) {
        if (fuzz_judge(imgtk_walk_next(walk, offset, size - offset, &found, &err), &err) != 0)
            break;
        FUZZ_REQUIRE(found.start == offset && found.extent.length > 0 && found.extent.length <= size - offset);
        FUZZ_REQUIRE(found.extent.kind != IMGTK_EXTENT_BACKING);
        read_extent(image, &found);
        offset += found.extent.length;
    }
    imgtk_walk_free(walk);
}

static void convert(struct imgtk_image *image)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct imgtk_convert job = {
        .sources = &image,
        .source_count = 1,
        .target = { .name = "null:", .format = "raw" },
        .sparse_size = IMGTK_SPARSE_DEFAULT,
        .workers = 1,
    };
    if (imgtk_image_size(image) <= MAX_CONVERTED)
        fuzz_judge(imgtk_convert(context, &job, &err), &err);
}

static struct imgtk_image *open_image(const char *name, const struct imgtk_image_request *request)
{
    struct imgtk_image *image = NULL;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    fuzz_judge(imgtk_image_open(context, name, request, &image, &err), &err);
    return image;
}

/* As convert opens it. */
static void use_recognised(const char *name)
{
    struct imgtk_image_request request = { .single_layer = true };
    struct imgtk_image *image = open_image(name, &request);
    if (!image)
        return;
    describe(image);
    map(image);
    convert(image);
    imgtk_image_close(image);
}

/* As check opens it: what is marked as dirty or corrupt is not refused. */
static void use_as(const char *name, const char *format)
{
    struct imgtk_image_request request = { .format = format, .single_layer = true, .check = true };
    struct imgtk_image *image = open_image(name, &request);
    struct imgtk_check result;
    if (!image)
        return;
    fuzz_check_image(image, &result, 0);
    map(image);
    imgtk_image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[32];
    size_t count;
    const struct imgtk_module *modules;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    int fd = fuzz_image_file(data, size, name);
    use_recognised(name);
    FUZZ_REQUIRE(imgtk_modules(context, &modules, &count, &err) == 0);
    for (size_t i = 0; i < count; i++)
        if (modules[i].driver)
            use_as(name, modules[i].name);
    close(fd);
    return 0;
}
