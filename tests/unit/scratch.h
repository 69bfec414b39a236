/* A folder of its own for each test, and the files that tests put there. */
#ifndef TEST_SCRATCH_H
#define TEST_SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct scratch {
    char root[64];
    char path[PATH_MAX]; /* what scratch_path() answered last */
};

static inline void scratch_new(struct scratch *scratch)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch->root, sizeof(scratch->root), "%s/imgtk-unit-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    assert_non_null(mkdtemp(scratch->root));
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static inline void scratch_free(struct scratch *scratch)
{
    nftw(scratch->root, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline const char *scratch_path(struct scratch *scratch, const char *name)
{
    snprintf(scratch->path, sizeof(scratch->path), "%s/%s", scratch->root, name);
    return scratch->path;
}

static inline void scratch_folder(struct scratch *scratch, const char *name)
{
    assert_int_equal(mkdir(scratch_path(scratch, name), 0755), 0);
}

static inline void scratch_file(struct scratch *scratch, const char *name, const char *text)
{
    int fd = open(scratch_path(scratch, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* The file's text, up to 4095 bytes; NULL when it is not there. */
static inline const char *scratch_read(struct scratch *scratch, const char *name)
{
    static char text[4096];
    int fd = open(scratch_path(scratch, name), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    assert_true(length >= 0);
    text[length] = '\0';
    return text;
}

/* How many entries a folder holds, hidden ones included. */
static inline int scratch_entries(struct scratch *scratch, const char *name)
{
    int count = 0;
    DIR *folder = opendir(scratch_path(scratch, name));
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return count;
}

#endif
