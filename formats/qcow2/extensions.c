/* Header extensions: backing format, data file name, feature names, bitmaps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

/* One extension as it was found. */
struct extension {
    uint32_t type, length;
    uint64_t offset; /* of its data */
};

/* Names of incompatible bits, by bit; "" where the image tells none. */
struct feature_names {
    char names[64][QCOW2_FEATURE_NAME_LENGTH + 1];
};

struct reader {
    struct imgtk_storage *file;
    const struct qcow2_header *header;
    struct qcow2_extensions *out;
    struct feature_names *features; /* NULL: nobody asks for names */
};

static int read_text(const struct reader *reader, const struct extension *extension, const char *what,
                     char out[QCOW2_MAX_NAME + 1], struct imgtk_error *err)
{
    if (extension->length > QCOW2_MAX_NAME)
        return imgtk_fail(err, IMGTK_ELIMIT, "%s of %" PRIu32 " bytes is above the limit of %d", what,
                          extension->length, QCOW2_MAX_NAME);
    int status = imgtk_storage_pread(reader->file, out, extension->length, extension->offset, err);
    if (status != 0)
        return status;
    out[extension->length] = '\0';
    if (strlen(out) != extension->length)
        return imgtk_fail(err, IMGTK_ECORRUPT, "%s holds a NUL byte", what);
    return 0;
}

static int read_bitmaps(const struct reader *reader, const struct extension *extension, struct imgtk_error *err)
{
    uint8_t bytes[QCOW2_BITMAPS_LENGTH];
    /* A program that does not know bitmaps clears the bit: what it left behind is stale. */
    if (!(reader->header->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    if (extension->length != QCOW2_BITMAPS_LENGTH)
        return imgtk_fail(err, IMGTK_ECORRUPT, "bitmaps extension has %" PRIu32 " bytes, not %d", extension->length,
                          QCOW2_BITMAPS_LENGTH);
    int status = imgtk_storage_pread(reader->file, bytes, sizeof(bytes), extension->offset, err);
    if (status != 0)
        return status;
    struct qcow2_bitmaps *bitmaps = &reader->out->bitmaps;
    bitmaps->count = imgtk_be32(bytes + QCOW2_BITMAPS_AT_COUNT);
    bitmaps->directory_size = imgtk_be64(bytes + QCOW2_BITMAPS_AT_DIRECTORY_SIZE);
    bitmaps->directory_offset = imgtk_be64(bytes + QCOW2_BITMAPS_AT_DIRECTORY_OFFSET);
    return 0;
}

static int read_feature_names(const struct reader *reader, const struct extension *extension, struct imgtk_error *err)
{
    uint8_t entry[QCOW2_FEATURE_ENTRY];
    if (!reader->features)
        return 0;
    for (uint32_t at = 0; extension->length - at >= sizeof(entry); at += QCOW2_FEATURE_ENTRY) {
        int status = imgtk_storage_pread(reader->file, entry, sizeof(entry), extension->offset + at, err);
        if (status != 0)
            return status;
        if (entry[0] == QCOW2_FEATURE_INCOMPATIBLE && entry[1] < 64)
            memcpy(reader->features->names[entry[1]], entry + QCOW2_FEATURE_NAME_AT, QCOW2_FEATURE_NAME_LENGTH);
    }
    return 0;
}

static int read_extension(const struct reader *reader, const struct extension *extension, struct imgtk_error *err)
{
    switch (extension->type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return read_text(reader, extension, "backing file format", reader->out->backing_format, err);
    case QCOW2_EXT_DATA_FILE:
        return read_text(reader, extension, "data file name", reader->out->data_file, err);
    case QCOW2_EXT_BITMAPS:
        return read_bitmaps(reader, extension, err);
    case QCOW2_EXT_FEATURE_NAMES:
        return read_feature_names(reader, extension, err);
    case QCOW2_EXT_CRYPTO:
        reader->out->crypto = true;
        return 0;
    default:
        return 0;
    }
}

/* The area ends where the backing file's name begins, else with the first cluster. */
static uint64_t area_end(const struct qcow2_header *header, uint64_t file_size)
{
    uint64_t end = UINT64_C(1) << header->cluster_bits;
    if (header->backing_offset != 0)
        end = imgtk_min_u64(end, header->backing_offset);
    return imgtk_min_u64(end, file_size);
}

static int read_all(const struct reader *reader, uint64_t file_size, struct imgtk_error *err)
{
    uint64_t end = area_end(reader->header, file_size);
    uint64_t at = reader->header->header_length;
    for (unsigned count = 0; at + QCOW2_EXTENSION_HEADER <= end; count++) {
        uint8_t bytes[QCOW2_EXTENSION_HEADER];
        int status = imgtk_storage_pread(reader->file, bytes, sizeof(bytes), at, err);
        if (status != 0)
            return status;
        struct extension extension = { imgtk_be32(bytes), imgtk_be32(bytes + 4), at + QCOW2_EXTENSION_HEADER };
        if (extension.type == QCOW2_EXT_END)
            return 0;
        if (count == QCOW2_MAX_EXTENSIONS)
            return imgtk_fail(err, IMGTK_ELIMIT, "more than %d header extensions", QCOW2_MAX_EXTENSIONS);
        if (extension.length > end - extension.offset)
            return imgtk_fail(err, IMGTK_ECORRUPT,
                              "header extension 0x%08" PRIx32 " of %" PRIu32 " bytes at 0x%" PRIx64
                              " reaches beyond the header's end at 0x%" PRIx64,
                              extension.type, extension.length, at, end);
        status = read_extension(reader, &extension, err);
        if (status != 0)
            return status;
        at = extension.offset + imgtk_round_up(extension.length, 8);
    }
    return 0;
}

/* The features are told one by one, with their names where the image has them. */
static int refuse_features(uint64_t unknown, const struct feature_names *features, struct imgtk_error *err)
{
    char text[IMGTK_MESSAGE_SIZE - 64];
    size_t used = 0;
    text[0] = '\0';
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1))
            continue;
        const char *name = features->names[bit];
        int added = snprintf(text + used, sizeof(text) - used, "%s%s%s%s(bit %u)", used ? ", " : "", name[0] ? "'" : "",
                             name, name[0] ? "' " : "", bit);
        if (added < 0 || (size_t)added >= sizeof(text) - used)
            break;
        used += (size_t)added;
    }
    text[used] = '\0';
    return imgtk_fail(err, IMGTK_EUNSUPPORTED, "unknown incompatible feature %s", text);
}

int qcow2_extensions_read(struct imgtk_storage *file, const struct qcow2_header *header, uint64_t file_size,
                          struct qcow2_extensions *out, struct imgtk_error *err)
{
    *out = (struct qcow2_extensions){ 0 };
    struct reader reader = { file, header, out, NULL };
    uint64_t unknown = header->incompatible & ~QCOW2_INCOMPAT_KNOWN;
    if (unknown == 0)
        return read_all(&reader, file_size, err);
    reader.features = calloc(1, sizeof(*reader.features));
    if (!reader.features)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for feature names");
    int status = read_all(&reader, file_size, err);
    if (status == 0)
        status = refuse_features(unknown, reader.features, err);
    free(reader.features);
    return status;
}
