#include "sequential.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "context.h"
#include "storage/storage.h"
#include "zero.h"

#define PIECE (1u << 20)
#define HOLE (64u << 10) /* zeroes that are not written: the temporary file stays sparse */

static int write_sparse(struct imgtk_storage *to, const unsigned char *buf, size_t length, uint64_t offset,
                        struct imgtk_error *err)
{
    for (size_t at = 0; at < length;) {
        size_t step = length - at < HOLE ? length - at : HOLE;
        int status = bytes_are_zero(buf + at, step) ? 0 : imgtk_storage_pwrite(to, buf + at, step, offset + at, err);
        if (status)
            return status;
        at += step;
    }
    return 0;
}

static int copy_all(struct imgtk_context *context, struct imgtk_storage *from, struct imgtk_storage *to, void *buf,
                    struct imgtk_error *err)
{
    uint64_t offset = 0;
    for (size_t done = PIECE; done == PIECE; offset += done) {
        int status = imgtk_storage_pread_some(from, buf, PIECE, offset, &done, err);
        if (!status)
            status = write_sparse(to, buf, done, offset, err);
        if (status)
            return status;
        if (context->cancel && *context->cancel)
            return imgtk_fail(err, IMGTK_ECANCELLED, "interrupted");
    }
    return imgtk_storage_truncate(to, offset, err);
}

/* /dev/zero would fill the disk; a terminal would wait for an image to be typed. */
static bool is_endless(const struct imgtk_storage *pipe)
{
    struct stat st;
    int failed = strcmp(pipe->name, "-") == 0 ? fstat(STDIN_FILENO, &st) : stat(pipe->name, &st);
    return failed == 0 && S_ISCHR(st.st_mode);
}

int sequential_spool(struct imgtk_context *context, struct imgtk_storage **file, struct imgtk_error *err)
{
    struct imgtk_storage *pipe = *file, *copy;
    if (!(imgtk_storage_flags(pipe) & IMGTK_STORAGE_SEQUENTIAL))
        return 0;
    if (is_endless(pipe))
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "it is a character device, which need not end: only files, block "
                          "devices and pipes are read");
    context_note(context, "%s: can be read once only, so it is read into a temporary file first", pipe->name);
    int status = imgtk_storage_spool(&copy, err);
    if (status)
        return status;
    void *buf = malloc(PIECE);
    status = buf ? copy_all(context, pipe, copy, buf, err) : imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    free(buf);
    if (status) {
        imgtk_storage_close(copy);
        return status;
    }
    char *name = copy->name;
    copy->name = pipe->name;
    pipe->name = name;
    imgtk_storage_close(pipe);
    *file = copy;
    return 0;
}
