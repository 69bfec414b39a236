/* The -o text, a size, and the nearest word to one that is misspelt. */
#include <string.h>

#include "fuzz.h"
#include "imgtk/opts.h"

static const char *const choices[] = { "off", "metadata", "falloc", "full", NULL };
static const struct imgtk_opt table[] = {
    { "compat6", IMGTK_OPT_BOOL, "off", NULL, 0, 0, "on or off" },
    { "backing_file", IMGTK_OPT_STRING, NULL, NULL, 0, 0, "text" },
    { "cluster_size", IMGTK_OPT_SIZE, "64k", NULL, 512, 2 << 20, "a size" },
    { "connections", IMGTK_OPT_UINT, "4", NULL, 1, 16, "a number" },
    { "preallocation", IMGTK_OPT_CHOICE, "off", choices, 0, 0, "a choice" },
    { NULL, IMGTK_OPT_BOOL, NULL, NULL, 0, 0, NULL },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    char *text = calloc(1, size + 1);
    struct imgtk_opts *opts = imgtk_opts_new(table);
    FUZZ_REQUIRE(text && opts);
    if (size)
        memcpy(text, data, size);
    if (fuzz_judge(imgtk_opts_parse(opts, "fuzz", text, &err), &err) == 0) {
        FUZZ_REQUIRE(imgtk_opts_number(opts, "cluster_size") >= 512);
        FUZZ_REQUIRE(imgtk_opts_number(opts, "connections") <= 16);
        FUZZ_REQUIRE(imgtk_opts_text(opts, "preallocation"));
    }
    imgtk_opts_free(opts);
    uint64_t bytes = 0;
    if (fuzz_judge(imgtk_parse_size(text, &bytes, &err), &err) == 0)
        FUZZ_REQUIRE(bytes <= INT64_MAX);
    imgtk_nearest_word(text, choices);
    free(text);
    return 0;
}
