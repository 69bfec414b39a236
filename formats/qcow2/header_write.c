/* The first cluster of a new image: header, extensions, backing file name. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "writer.h"

static const struct {
    uint8_t type, bit;
    const char *name;
} feature_names[] = {
    { QCOW2_FEATURE_INCOMPATIBLE, 0, "dirty bit" },
    { QCOW2_FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
    { QCOW2_FEATURE_INCOMPATIBLE, 2, "external data file" },
    { QCOW2_FEATURE_INCOMPATIBLE, 3, "compression type" },
    { QCOW2_FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
    { QCOW2_FEATURE_COMPATIBLE, 0, "lazy refcounts" },
    { QCOW2_FEATURE_AUTOCLEAR, 0, "bitmaps" },
    { QCOW2_FEATURE_AUTOCLEAR, 1, "raw external data" },
};
enum { FEATURE_COUNT = sizeof(feature_names) / sizeof(feature_names[0]) };

static size_t extension_size(size_t length)
{
    return QCOW2_EXTENSION_HEADER + ((length + 7) & ~(size_t)7);
}

/* Lengths of what the first cluster holds. */
struct lengths {
    size_t header, features, total;
};

static struct lengths measure(const struct qcow2_create_options *options)
{
    struct lengths lengths = { .header = options->version >= 3 ? QCOW2_FULL_HEADER_LENGTH : QCOW2_V2_HEADER_LENGTH };
    size_t length = lengths.header + QCOW2_EXTENSION_HEADER;
    if (options->backing_fmt)
        length += extension_size(strlen(options->backing_fmt));
    if (options->data_file)
        length += extension_size(strlen(options->data_file));
    if (options->backing_file)
        length += strlen(options->backing_file);
    /* The names only help to explain an error; small clusters do without. */
    size_t features = extension_size((size_t)FEATURE_COUNT * QCOW2_FEATURE_ENTRY);
    if (options->version >= 3 && length + features <= options->geometry.cluster_size)
        lengths.features = features;
    lengths.total = length + lengths.features;
    return lengths;
}

static uint8_t *put_extension(uint8_t *at, uint32_t type, const char *text)
{
    if (!text)
        return at;
    imgtk_put_be32(at, type);
    imgtk_put_be32(at + 4, (uint32_t)strlen(text));
    memcpy(at + QCOW2_EXTENSION_HEADER, text, strlen(text));
    return at + extension_size(strlen(text));
}

static void put_features(uint8_t *at)
{
    imgtk_put_be32(at, QCOW2_EXT_FEATURE_NAMES);
    imgtk_put_be32(at + 4, FEATURE_COUNT * QCOW2_FEATURE_ENTRY);
    at += QCOW2_EXTENSION_HEADER;
    for (size_t i = 0; i < FEATURE_COUNT; i++, at += QCOW2_FEATURE_ENTRY) {
        at[0] = feature_names[i].type;
        at[1] = feature_names[i].bit;
        memcpy(at + QCOW2_FEATURE_NAME_AT, feature_names[i].name, strlen(feature_names[i].name));
    }
}

static uint64_t incompatible_bits(const struct qcow2_create_options *options)
{
    return (options->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
           (options->compression_type != QCOW2_COMPRESSION_ZLIB ? QCOW2_INCOMPAT_COMPRESSION : 0) |
           (options->geometry.extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0);
}

static void put_header(uint8_t *header, const struct qcow2_create_options *options)
{
    imgtk_put_be32(header + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    imgtk_put_be32(header + QCOW2_AT_VERSION, options->version);
    imgtk_put_be32(header + QCOW2_AT_CLUSTER_BITS, options->geometry.cluster_bits);
    imgtk_put_be64(header + QCOW2_AT_SIZE, options->size);
    imgtk_put_be32(header + QCOW2_AT_L1_SIZE, (uint32_t)qcow2_l1_entries(&options->geometry, options->size));
    if (options->version < 3)
        return;
    imgtk_put_be64(header + QCOW2_AT_INCOMPATIBLE, incompatible_bits(options));
    imgtk_put_be64(header + QCOW2_AT_COMPATIBLE, options->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
    imgtk_put_be64(header + QCOW2_AT_AUTOCLEAR, options->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0);
    imgtk_put_be32(header + QCOW2_AT_REFCOUNT_ORDER, options->geometry.refcount_order);
    imgtk_put_be32(header + QCOW2_AT_HEADER_LENGTH, QCOW2_FULL_HEADER_LENGTH);
    header[QCOW2_AT_COMPRESSION_TYPE] = options->compression_type;
}

int qcow2_header_build(const struct qcow2_create_options *options, uint8_t **out, size_t *length,
                       struct imgtk_error *err)
{
    struct lengths lengths = measure(options);
    if (lengths.total > options->geometry.cluster_size)
        return imgtk_fail(err, IMGTK_ELIMIT,
                          "header and names take %zu bytes, but must fit into one cluster of %" PRIu64 " bytes",
                          lengths.total, options->geometry.cluster_size);
    uint8_t *header = calloc(1, lengths.total);
    if (!header)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    put_header(header, options);
    uint8_t *at = header + lengths.header;
    at = put_extension(at, QCOW2_EXT_BACKING_FORMAT, options->backing_fmt);
    at = put_extension(at, QCOW2_EXT_DATA_FILE, options->data_file);
    if (lengths.features)
        put_features(at);
    at += lengths.features + QCOW2_EXTENSION_HEADER; /* the end extension is all zero */
    if (options->backing_file) {
        imgtk_put_be64(header + QCOW2_AT_BACKING_OFFSET, (uint64_t)(at - header));
        imgtk_put_be32(header + QCOW2_AT_BACKING_LENGTH, (uint32_t)strlen(options->backing_file));
        memcpy(at, options->backing_file, strlen(options->backing_file));
    }
    *out = header;
    *length = lengths.total;
    return 0;
}

void qcow2_header_place(uint8_t *header, const struct qcow2_places *places)
{
    imgtk_put_be64(header + QCOW2_AT_L1_OFFSET, places->l1_offset);
    imgtk_put_be64(header + QCOW2_AT_REFCOUNT_TABLE_OFFSET, places->refcount_table_offset);
    imgtk_put_be32(header + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, places->refcount_table_clusters);
}
