/* Unnamed temporary files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/storage.h"

const char *imgtk_spool_folder(void)
{
    const char *folder = secure_getenv("TMPDIR");
    /* Not /tmp, which often is memory: what is spooled can be as large as a disk. */
    return folder && folder[0] ? folder : "/var/tmp";
}

/* For file systems without O_TMPFILE: a name that lives for a moment. */
static int open_and_unlink(const char *folder, struct imgtk_error *err)
{
    static const char pattern[] = "/imgtk-XXXXXX";
    size_t length = strlen(folder);
    char *path = malloc(length + sizeof(pattern));
    if (!path) {
        imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
        return -1;
    }
    memcpy(path, folder, length);
    memcpy(path + length, pattern, sizeof(pattern));
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        imgtk_fail_errno(err, errno, "cannot make a temporary file in %s", folder);
    else
        unlink(path);
    free(path);
    return fd;
}

int imgtk_storage_spool(struct imgtk_storage **out, struct imgtk_error *err)
{
    const char *folder = imgtk_spool_folder();
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        fd = open_and_unlink(folder, err);
    if (fd < 0)
        return err ? err->status : IMGTK_EIO;
    return storage_from_fd(fd, "temporary file", IMGTK_STORAGE_WRITABLE, out, err);
}
