/*
 * The main program of a target that is built without a fuzzer: runs it on the
 * files that are named, and on those in the folders that are, one by one.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    struct stat st;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &st) != 0) {
        perror(path);
        exit(1);
    }
    uint8_t *data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    FUZZ_REQUIRE(data);
    *size = fread(data, 1, (size_t)st.st_size, file);
    fclose(file);
    return data;
}

static void run_file(const char *path)
{
    size_t size;
    uint8_t *data = read_file(path, &size);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    printf("[       OK ] %s\n", path);
    fflush(stdout); /* what comes next may crash */
}

static void run_folder(const char *folder)
{
    struct dirent **items;
    int count = scandir(folder, &items, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[4096];
        if (items[i]->d_name[0] != '.' &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", folder, items[i]->d_name) < sizeof(path))
            run_file(path);
        free(items[i]);
    }
    if (count >= 0)
        free(items);
}

int main(int argc, char **argv)
{
    LLVMFuzzerInitialize(&argc, &argv);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("[       OK ] nothing\n");
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0)
            continue; /* no fault has been found by this target yet */
        if (S_ISDIR(st.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    }
    return 0;
}
