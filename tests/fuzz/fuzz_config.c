/* The configuration file. */
#include "context/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config = { 0 };
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct fuzz_input input = { data, size };
    char *text = (char *)fuzz_take_copy(&input, size);
    if (fuzz_judge(config_parse("fuzz.yaml", text, size, &config, &err), &err) == 0) {
        FUZZ_REQUIRE(config.workers <= CONFIG_MAX_WORKERS);
        FUZZ_REQUIRE(config.allow_dir_count <= CONFIG_MAX_ENTRIES);
    }
    config_free(&config);
    free(text);
    return 0;
}
