#include "module_file.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imgtk/bytes.h"
#include "registry.h"
#include "storage/storage.h"

int module_path_trusted(const char *path, bool folder, struct imgtk_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return imgtk_fail_errno(err, errno, "cannot be examined");
    if (folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
        return imgtk_fail(err, IMGTK_EREFUSED, "not a %s", folder ? "folder" : "regular file");
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return imgtk_fail(err, IMGTK_EREFUSED, "%s belongs to user %u, not to root or to the user who runs this",
                          folder ? "its folder" : "it", (unsigned)st.st_uid);
    /* A group of its own is common for people; root's code must not depend on any group but root's. */
    bool group_counts = geteuid() == 0 && st.st_gid != 0;
    if ((st.st_mode & S_IWOTH) || (group_counts && (st.st_mode & S_IWGRP)))
        return imgtk_fail(err, IMGTK_EREFUSED, "%s can be written by others (mode %04o)",
                          folder ? "its folder" : "it", (unsigned)(st.st_mode & 07777));
    return 0;
}

/* As pread(), but it is short only at the end of the file, as a network file system's is not. */
static ssize_t read_fully(int fd, void *buf, size_t length, uint64_t offset)
{
    size_t done = 0;
    while (done < length) {
        ssize_t count = pread(fd, (char *)buf + done, length - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        done += (size_t)count;
    }
    return (ssize_t)done;
}

/* The parts of a library that dlopen maps; beyond the end of a file that was cut short, touching them is a SIGBUS. */
static int check_segments(int fd, const ElfW(Ehdr) *header, uint64_t size, struct imgtk_error *err)
{
    for (unsigned i = 0; i < header->e_phnum; i++) {
        ElfW(Phdr) segment;
        uint64_t at = header->e_phoff + (uint64_t)i * sizeof(segment);
        if (!imgtk_range_fits(at, sizeof(segment), size) ||
            read_fully(fd, &segment, sizeof(segment), at) != (ssize_t)sizeof(segment))
            return imgtk_fail(err, IMGTK_EINVAL, "not a whole library: it ends at byte %" PRIu64, size);
        if (segment.p_type == PT_LOAD && !imgtk_range_fits(segment.p_offset, segment.p_filesz, size))
            return imgtk_fail(err, IMGTK_EINVAL, "not a whole library: it ends at byte %" PRIu64, size);
    }
    return 0;
}

static int check_elf(int fd, struct imgtk_error *err)
{
    ElfW(Ehdr) header = { 0 };
    struct stat st;
    ssize_t got = read_fully(fd, &header, sizeof(header), 0);
    if (got < SELFMAG || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "not a module: no ELF library");
    if (got != (ssize_t)sizeof(header) || fstat(fd, &st) != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "not a whole library: it ends at byte %zd", got);
    if (header.e_phentsize != sizeof(ElfW(Phdr)))
        return 0; /* another machine's: dlopen says so */
    return check_segments(fd, &header, (uint64_t)st.st_size, err);
}

/* dlopen maps a file and runs its constructors, so what is plainly no whole library is turned away before. */
static int require_elf(const char *path, struct imgtk_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return imgtk_fail_errno(err, errno, "cannot be opened");
    int status = check_elf(fd, err);
    close(fd);
    return status;
}

/* The other majors that a module could have been built for, so that the message can say so. */
static int explain_missing_symbol(void *library, struct imgtk_error *err)
{
    for (unsigned major = 0; major < 10; major++) {
        char symbol[32];
        snprintf(symbol, sizeof(symbol), "imgtk_driver_v%u", major);
        bool found = dlsym(library, symbol) != NULL;
        snprintf(symbol, sizeof(symbol), "imgtk_storage_v%u", major);
        found = found || dlsym(library, symbol) != NULL;
        snprintf(symbol, sizeof(symbol), "imgtk_digest_v%u", major);
        found = found || dlsym(library, symbol) != NULL;
        if (found)
            return imgtk_fail(err, IMGTK_EINVAL, "built for another ABI: version %u, this is version 1", major);
    }
    return imgtk_fail(err, IMGTK_EINVAL, "not a module: it exports neither %s nor %s nor %s", IMGTK_DRIVER_SYMBOL,
                      IMGTK_STORAGE_SYMBOL, IMGTK_DIGEST_SYMBOL);
}

static int check_name(const char *found, const char *expected, struct imgtk_error *err)
{
    if (strcmp(found, expected) != 0)
        return imgtk_fail(err, IMGTK_EINVAL, "it calls itself '%s', which its file name does not", found);
    return 0;
}

static int no_table(const char *symbol, struct imgtk_error *err)
{
    return imgtk_fail(err, IMGTK_EINVAL, "its %s() returns nothing", symbol);
}

static int take_driver(struct module_file *file, const struct imgtk_driver *table, struct imgtk_error *err)
{
    int status = table ? driver_complete(table, &file->driver, err) : no_table(IMGTK_DRIVER_SYMBOL, err);
    file->is_driver = status == 0;
    return status;
}

static int take_storage(struct module_file *file, const struct imgtk_storage_ops *table, struct imgtk_error *err)
{
    int status = table ? storage_ops_complete(table, &file->storage, err) : no_table(IMGTK_STORAGE_SYMBOL, err);
    file->is_storage = status == 0;
    return status;
}

static int take_digest(struct module_file *file, const struct imgtk_digest *table, struct imgtk_error *err)
{
    int status = table ? digest_complete(table, &file->digest, err) : no_table(IMGTK_DIGEST_SYMBOL, err);
    file->is_digest = status == 0;
    return status;
}

static int take_tables(struct module_file *file, const char *name, struct imgtk_error *err)
{
    const struct imgtk_driver *(*driver)(void);
    const struct imgtk_storage_ops *(*storage)(void);
    const struct imgtk_digest *(*digest)(void);
    /* POSIX's way to get a function from dlsym without a cast that C forbids. */
    *(void **)&driver = dlsym(file->library, IMGTK_DRIVER_SYMBOL);
    *(void **)&storage = dlsym(file->library, IMGTK_STORAGE_SYMBOL);
    *(void **)&digest = dlsym(file->library, IMGTK_DIGEST_SYMBOL);
    int status;
    if (driver)
        status = take_driver(file, driver(), err);
    else if (storage)
        status = take_storage(file, storage(), err);
    else if (digest)
        status = take_digest(file, digest(), err);
    else
        return explain_missing_symbol(file->library, err);
    if (status)
        return status;
    return check_name(driver ? file->driver.name : storage ? file->storage.name : file->digest.name, name, err);
}

int module_file_load(const char *path, const char *name, struct module_file *out, struct imgtk_error *err)
{
    memset(out, 0, sizeof(*out));
    int status = module_path_trusted(path, false, err);
    if (!status)
        status = require_elf(path, err);
    if (status)
        return status;
    out->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!out->library) {
        const char *reason = dlerror();
        return imgtk_fail(err, IMGTK_EINVAL, "cannot be loaded: %s", reason ? reason : "no reason given");
    }
    status = take_tables(out, name, err);
    if (status)
        module_file_unload(out);
    return status;
}

void module_file_unload(struct module_file *file)
{
    if (file->library)
        dlclose(file->library);
    memset(file, 0, sizeof(*file));
}
