/* Reading the target back. */
#include <stdio.h>
#include <string.h>

#include "chain/image_internal.h"
#include "convert.h"
#include "jobs/checksum.h"
#include "resume.h"

/* "0f3a..." and so on; enough to see that two differ. */
static void format_start(const struct imgtk_digest_value *digest, char out[20])
{
    for (size_t i = 0; i < 8; i++)
        snprintf(out + 2 * i, 3, "%02x", digest->bytes[i]);
    memcpy(out + 16, "...", 4);
}

static int compare(const struct imgtk_digest_value *expected, const struct imgtk_digest_value *found,
                   struct imgtk_error *err)
{
    char texts[2][20];
    if (memcmp(expected->bytes, found->bytes, expected->length) == 0)
        return 0;
    format_start(expected, texts[0]);
    format_start(found, texts[1]);
    return imgtk_fail(err, IMGTK_ECORRUPT, "the checksum of what was written is %s, of what is read back %s", texts[0],
                      texts[1]);
}

static int read_back(struct conversion *conversion, struct imgtk_image *image,
                     const struct imgtk_digest_value *expected, struct imgtk_error *err)
{
    const struct imgtk_convert *job = conversion->job;
    struct source source;
    struct imgtk_digest_value found = { .length = expected->length };
    uint64_t size = conversion->source.size;
    int status = source_init(&source, &image, 1, err);
    if (!status && source.size < size)
        status = imgtk_fail(err, IMGTK_ECORRUPT, "the disk that is read back has %llu bytes instead of %llu",
                            (unsigned long long)source.size, (unsigned long long)size);
    if (status)
        return status;
    struct checksum_pass pass = {
        .source = &source, .length = size, .workers = conversion->workers, .progress = conversion->progress,
        .tell = job->progress, .tell_context = job->progress_context, .cancel = job->cancel,
    };
    pass.progress.phase = "verify";
    status = checksum_disk(&pass, conversion->digest.module, found.bytes, err);
    return status ? status : compare(expected, &found, err);
}

int convert_verify(struct conversion *conversion, const struct imgtk_digest_value *expected, struct imgtk_error *err)
{
    struct target *target = &conversion->target;
    struct image_written written = { .file = target->file, .references = target->references, .driver = target->driver,
                                     .backing = conversion->job->backing };
    struct imgtk_image *image = NULL;
    int status = target_settle(target, err);
    if (!status)
        status = image_open_written(conversion->context, &written, &image, err);
    if (!status)
        status = read_back(conversion, image, expected, err);
    imgtk_image_close(image);
    if (status && status != IMGTK_ECANCELLED && target->resume)
        resume_discard(target->resume);
    return status ? imgtk_fail_prefix(err, "%s: verification failed", conversion->job->target.name) : 0;
}
