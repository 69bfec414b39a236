#include "convert_digest.h"

#include "convert.h"
#include "imgtk/bytes.h"
#include "jobs/checksum.h"
#include "modules/registry.h"

int convert_digest_begin(struct conversion *conversion, struct imgtk_error *err)
{
    const struct imgtk_convert *job = conversion->job;
    struct conversion_digest *digest = &conversion->digest;
    if (!job->digest && !job->verify)
        return 0;
    int status = registry_digest(conversion->context, job->algorithm, &digest->module, err);
    return status ? status : digest_tree_new(digest->module, conversion->source.size, &digest->tree, err);
}

int convert_digest_resume(struct conversion *conversion, struct imgtk_error *err)
{
    struct conversion_digest *digest = &conversion->digest;
    uint64_t size = conversion->source.size;
    digest->from = imgtk_min_u64(size, imgtk_round_up(conversion->position, DIGEST_BLOCK));
    struct checksum_pass pass = { .source = &conversion->source, .length = digest->from,
                                  .workers = conversion->workers, .cancel = conversion->job->cancel };
    return digest->tree && digest->from > 0 ? checksum_tree(&pass, digest->tree, err) : 0;
}

/* How much of a run was told before. */
static uint64_t known_part(const struct conversion *conversion, uint64_t offset, uint64_t length)
{
    uint64_t from = conversion->digest.from;
    return offset < from ? imgtk_min_u64(length, from - offset) : 0;
}

int convert_digest_data(const struct conversion *conversion, struct digest_hasher *hasher, const uint8_t *bytes,
                        uint64_t offset, uint64_t length, struct imgtk_error *err)
{
    uint64_t known = known_part(conversion, offset, length);
    if (!hasher || known == length)
        return 0;
    return digest_hasher_data(hasher, bytes + known, offset + known, length - known, err);
}

int convert_digest_zero(const struct conversion *conversion, struct digest_hasher *hasher, uint64_t offset,
                        uint64_t length, struct imgtk_error *err)
{
    uint64_t known = known_part(conversion, offset, length);
    if (!hasher || known == length)
        return 0;
    return digest_hasher_zero(hasher, offset + known, length - known, err);
}

int convert_digest_end(struct conversion *conversion, struct imgtk_digest_value *out, struct imgtk_error *err)
{
    if (!conversion->digest.tree)
        return 0;
    out->length = conversion->digest.module->length;
    return digest_tree_end(conversion->digest.tree, out->bytes, err);
}
