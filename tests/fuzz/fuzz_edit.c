/*
 * Changes to an image that anybody may have made: a repair, then one change.
 * What check calls clean before a change, it must call clean after it.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "image.h"
#include "imgtk/bytes.h"
#include "imgtk/edit.h"
#include "imgtk/info.h"

static struct imgtk_context *context;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    context = fuzz_context();
    return 0;
}

static struct imgtk_image *open_image(const char *name, bool check)
{
    struct imgtk_image_request request = { .single_layer = true, .writable = true, .check = check };
    struct imgtk_image *image = NULL;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    fuzz_judge(imgtk_image_open(context, name, &request, &image, &err), &err);
    return image;
}

/* Whether nothing was found that would lose data. */
static bool is_clean(const char *name, uint32_t repair)
{
    struct imgtk_check check;
    struct imgtk_image *image = open_image(name, true);
    if (!image)
        return false;
    fuzz_check_image(image, &check, repair);
    imgtk_image_close(image);
    return check.corruptions == 0 && check.check_errors == 0;
}

static int change(struct imgtk_image *image, unsigned choice, struct imgtk_error *err)
{
    struct imgtk_snapshot_change snapshot = { .action = (enum imgtk_snapshot_action)(choice % 3), .name = "1" };
    struct imgtk_rebase rebase = { .image = image, .unsafe = true };
    uint64_t size = imgtk_image_size(image);
    switch (choice % 7) {
    case 3:
        return imgtk_resize(image, size + 65536, false, err);
    case 4:
        return imgtk_resize(image, size / 2, true, err);
    case 5:
        return imgtk_rebase(&rebase, err);
    case 6:
        rebase.backing_name = "base.raw";
        rebase.backing_format = "raw";
        return imgtk_rebase(&rebase, err);
    default:
        return imgtk_snapshot_change(image, &snapshot, err);
    }
}

static void change_all(const char *name, unsigned choices)
{
    for (unsigned left = choices; left > 0; left /= 7) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        bool clean = is_clean(name, 0);
        struct imgtk_image *image = open_image(name, false);
        if (!image)
            return;
        fuzz_judge(change(image, left, &err), &err);
        imgtk_image_close(image);
        FUZZ_REQUIRE(!clean || is_clean(name, 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[32];
    struct fuzz_input input = { data, size };
    bool repair = fuzz_take(&input, 1) & 1;
    unsigned choices = (unsigned)fuzz_take(&input, 2);
    int fd = fuzz_image_file(input.data, input.size, name);
    if (repair)
        is_clean(name, IMGTK_REPAIR_LEAKS | IMGTK_REPAIR_ERRORS);
    change_all(name, choices);
    close(fd);
    return 0;
}
