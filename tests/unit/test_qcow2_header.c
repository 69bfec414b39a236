#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "../../formats/qcow2/qcow2.h"
#include "imgtk/image.h"

struct header_bytes {
    uint8_t bytes[QCOW2_FULL_HEADER_LENGTH];
};

/* A valid header of a 1 GiB disk with 64 KiB clusters. */
static struct header_bytes good(uint32_t version)
{
    struct header_bytes out = { { 0 } };
    imgtk_put_be32(out.bytes + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    imgtk_put_be32(out.bytes + QCOW2_AT_VERSION, version);
    imgtk_put_be32(out.bytes + QCOW2_AT_CLUSTER_BITS, 16);
    imgtk_put_be64(out.bytes + QCOW2_AT_SIZE, UINT64_C(1) << 30);
    imgtk_put_be32(out.bytes + QCOW2_AT_L1_SIZE, 2);
    imgtk_put_be64(out.bytes + QCOW2_AT_L1_OFFSET, 0x30000);
    imgtk_put_be64(out.bytes + QCOW2_AT_REFCOUNT_TABLE_OFFSET, 0x10000);
    imgtk_put_be32(out.bytes + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 1);
    if (version == 3) {
        imgtk_put_be32(out.bytes + QCOW2_AT_REFCOUNT_ORDER, 4);
        imgtk_put_be32(out.bytes + QCOW2_AT_HEADER_LENGTH, QCOW2_FULL_HEADER_LENGTH);
    }
    return out;
}

static int judge(const struct header_bytes *bytes, struct qcow2_header *header, struct imgtk_error *err)
{
    int status = qcow2_header_parse(bytes->bytes, sizeof(bytes->bytes), header, err);
    return status == 0 ? qcow2_header_validate(header, err) : status;
}

static void good_headers_are_parsed(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct header_bytes bytes = good(version);
        struct qcow2_header header;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        assert_int_equal(judge(&bytes, &header, &err), 0);
        assert_int_equal(header.version, version);
        assert_int_equal(header.size, UINT64_C(1) << 30);
        assert_int_equal(header.l1_offset, 0x30000);
        assert_int_equal(header.refcount_order, 4);
        assert_int_equal(header.header_length, version == 2 ? QCOW2_V2_HEADER_LENGTH : QCOW2_FULL_HEADER_LENGTH);
    }
}

static void version_2_ignores_later_fields(void **state)
{
    (void)state;
    struct header_bytes bytes = good(2);
    memset(bytes.bytes + QCOW2_V2_HEADER_LENGTH, 0xff, sizeof(bytes.bytes) - QCOW2_V2_HEADER_LENGTH);
    struct qcow2_header header;
    assert_int_equal(judge(&bytes, &header, NULL), 0);
    assert_int_equal(header.incompatible, 0);
    assert_int_equal(header.compression_type, 0);
}

static void short_files_are_refused(void **state)
{
    (void)state;
    struct qcow2_header header;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct header_bytes two = good(2), three = good(3);
    for (size_t length = 0; length < QCOW2_V2_HEADER_LENGTH; length++)
        assert_int_equal(qcow2_header_parse(two.bytes, length, &header, &err), IMGTK_ECORRUPT);
    assert_int_equal(qcow2_header_parse(two.bytes, QCOW2_V2_HEADER_LENGTH, &header, &err), 0);
    for (size_t length = 0; length <= QCOW2_AT_COMPRESSION_TYPE; length++)
        assert_int_equal(qcow2_header_parse(three.bytes, length, &header, &err), IMGTK_ECORRUPT);
    imgtk_put_be32(three.bytes + QCOW2_AT_HEADER_LENGTH, QCOW2_V3_HEADER_LENGTH);
    assert_int_equal(qcow2_header_parse(three.bytes, QCOW2_V3_HEADER_LENGTH, &header, &err), 0);
}

/* One field of a good version 3 header is changed; the result and a word of the message. */
struct fault {
    unsigned at, width;
    uint64_t value;
    int status;
    const char *word;
};

static void faults_are_named(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        { QCOW2_AT_MAGIC, 4, 0, IMGTK_EINVAL, "not a qcow2" },
        { QCOW2_AT_VERSION, 4, 1, IMGTK_EUNSUPPORTED, "version 1" },
        { QCOW2_AT_VERSION, 4, 4, IMGTK_EUNSUPPORTED, "version 4" },
        { QCOW2_AT_CLUSTER_BITS, 4, 8, IMGTK_ECORRUPT, "cluster size 2^8" },
        { QCOW2_AT_CLUSTER_BITS, 4, 22, IMGTK_ECORRUPT, "cluster size 2^22" },
        { QCOW2_AT_CLUSTER_BITS, 4, 40, IMGTK_ECORRUPT, "cluster size 2^40" },
        { QCOW2_AT_CLUSTER_BITS, 4, 0xffffffff, IMGTK_ECORRUPT, "cluster size" },
        { QCOW2_AT_SIZE, 8, UINT64_C(1) << 63, IMGTK_ELIMIT, "virtual size" },
        { QCOW2_AT_CRYPT_METHOD, 4, 1, IMGTK_EUNSUPPORTED, "AES" },
        { QCOW2_AT_CRYPT_METHOD, 4, 2, IMGTK_EUNSUPPORTED, "LUKS" },
        { QCOW2_AT_CRYPT_METHOD, 4, 3, IMGTK_ECORRUPT, "encryption method 3" },
        { QCOW2_AT_L1_SIZE, 4, 1, IMGTK_ECORRUPT, "too small" },
        { QCOW2_AT_L1_SIZE, 4, 0xffffffff, IMGTK_ELIMIT, "4294967295 entries" },
        { QCOW2_AT_L1_OFFSET, 8, 0x30200, IMGTK_ECORRUPT, "0x30200" },
        { QCOW2_AT_REFCOUNT_TABLE_OFFSET, 8, 1, IMGTK_ECORRUPT, "refcount table offset" },
        { QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 4, 129, IMGTK_ELIMIT, "refcount table" },
        { QCOW2_AT_SNAPSHOT_COUNT, 4, 65537, IMGTK_ELIMIT, "65537 snapshots" },
        { QCOW2_AT_REFCOUNT_ORDER, 4, 7, IMGTK_ECORRUPT, "refcount width" },
        { QCOW2_AT_REFCOUNT_ORDER, 4, 0xffffffff, IMGTK_ECORRUPT, "refcount width" },
        { QCOW2_AT_HEADER_LENGTH, 4, 72, IMGTK_ECORRUPT, "header length 72" },
        { QCOW2_AT_HEADER_LENGTH, 4, 65537, IMGTK_ECORRUPT, "header length 65537" },
        { QCOW2_AT_COMPRESSION_TYPE, 1, 1, IMGTK_ECORRUPT, "compression type 1" },
        { QCOW2_AT_COMPRESSION_TYPE, 1, 2, IMGTK_EUNSUPPORTED, "compression type 2" },
        { QCOW2_AT_INCOMPATIBLE, 8, QCOW2_INCOMPAT_COMPRESSION, IMGTK_ECORRUPT, "compression type 0" },
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        const struct fault *fault = &faults[i];
        struct header_bytes bytes = good(3);
        struct qcow2_header header;
        struct imgtk_error err = IMGTK_ERROR_INIT;
        if (fault->width == 1)
            bytes.bytes[fault->at] = (uint8_t)fault->value;
        else if (fault->width == 4)
            imgtk_put_be32(bytes.bytes + fault->at, (uint32_t)fault->value);
        else
            imgtk_put_be64(bytes.bytes + fault->at, fault->value);
        assert_int_equal(judge(&bytes, &header, &err), fault->status);
        if (!strstr(err.message, fault->word))
            fail_msg("no '%s' in '%s'", fault->word, err.message);
    }
}

static void backing_name_lies_in_the_first_cluster(void **state)
{
    (void)state;
    static const struct { uint64_t offset; uint32_t length; int status; } cases[] = {
        { 0, 0xffffffff, 0 }, { 200, 1023, 0 }, { 200, 1024, IMGTK_ELIMIT }, { 65536 - 10, 10, 0 },
        { 65536 - 10, 11, IMGTK_ECORRUPT }, { UINT64_MAX, 2, IMGTK_ECORRUPT },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct header_bytes bytes = good(3);
        struct qcow2_header header;
        imgtk_put_be64(bytes.bytes + QCOW2_AT_BACKING_OFFSET, cases[i].offset);
        imgtk_put_be32(bytes.bytes + QCOW2_AT_BACKING_LENGTH, cases[i].length);
        assert_int_equal(judge(&bytes, &header, NULL), cases[i].status);
    }
}

static void extended_l2_needs_large_clusters(void **state)
{
    (void)state;
    struct header_bytes bytes = good(3);
    struct qcow2_header header;
    imgtk_put_be64(bytes.bytes + QCOW2_AT_INCOMPATIBLE, QCOW2_INCOMPAT_EXTENDED_L2);
    imgtk_put_be32(bytes.bytes + QCOW2_AT_L1_SIZE, 4);
    assert_int_equal(judge(&bytes, &header, NULL), 0);
    imgtk_put_be32(bytes.bytes + QCOW2_AT_L1_SIZE, 3);
    assert_int_equal(judge(&bytes, &header, NULL), IMGTK_ECORRUPT);
    imgtk_put_be32(bytes.bytes + QCOW2_AT_CLUSTER_BITS, 13);
    imgtk_put_be32(bytes.bytes + QCOW2_AT_L1_SIZE, 65536);
    assert_int_equal(judge(&bytes, &header, NULL), IMGTK_ECORRUPT);
}

static int read_extensions(struct header_bytes header_bytes, const uint8_t *extensions, size_t length,
                           struct qcow2_extensions *out, struct imgtk_error *err)
{
    static uint8_t file[65536];
    memset(file, 0, sizeof(file));
    memcpy(file, header_bytes.bytes, sizeof(header_bytes.bytes));
    memcpy(file + sizeof(header_bytes.bytes), extensions, length);
    struct qcow2_header header;
    struct imgtk_storage *storage = NULL;
    assert_int_equal(qcow2_header_parse(file, sizeof(file), &header, err), 0);
    assert_int_equal(imgtk_storage_from_memory(file, sizeof(file), &storage, err), 0);
    int status = qcow2_extensions_read(storage, &header, sizeof(file), out, err);
    imgtk_storage_close(storage);
    return status;
}

static void unknown_features_are_refused_by_name(void **state)
{
    (void)state;
    uint8_t extensions[8 + QCOW2_FEATURE_ENTRY] = { 0 };
    struct qcow2_extensions out;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct header_bytes bytes = good(3);
    imgtk_put_be32(extensions, QCOW2_EXT_FEATURE_NAMES);
    imgtk_put_be32(extensions + 4, QCOW2_FEATURE_ENTRY);
    extensions[9] = 5;
    memcpy(extensions + 10, "xyz", 3);
    imgtk_put_be64(bytes.bytes + QCOW2_AT_INCOMPATIBLE, UINT64_C(0x60));
    assert_int_equal(read_extensions(bytes, extensions, sizeof(extensions), &out, &err), IMGTK_EUNSUPPORTED);
    assert_string_equal(err.message, "unknown incompatible feature 'xyz' (bit 5), (bit 6)");
    imgtk_put_be64(bytes.bytes + QCOW2_AT_INCOMPATIBLE, UINT64_MAX);
    assert_int_equal(read_extensions(bytes, extensions, sizeof(extensions), &out, &err), IMGTK_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "(bit 63)"));
}

static void extensions_are_bounded(void **state)
{
    (void)state;
    struct qcow2_extensions out;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    uint8_t text[8 + 1024 + 8] = { 0 };
    imgtk_put_be32(text, QCOW2_EXT_BACKING_FORMAT);
    imgtk_put_be32(text + 4, 4);
    memcpy(text + 8, "vmdk", 4);
    assert_int_equal(read_extensions(good(3), text, sizeof(text), &out, &err), 0);
    assert_string_equal(out.backing_format, "vmdk");
    text[9] = '\0';
    assert_int_equal(read_extensions(good(3), text, sizeof(text), &out, &err), IMGTK_ECORRUPT);
    memset(text + 8, 'x', 1024);
    imgtk_put_be32(text + 4, 1023);
    assert_int_equal(read_extensions(good(3), text, sizeof(text), &out, &err), 0);
    assert_int_equal(strlen(out.backing_format), 1023);
    imgtk_put_be32(text + 4, 1024);
    assert_int_equal(read_extensions(good(3), text, sizeof(text), &out, &err), IMGTK_ELIMIT);
    imgtk_put_be32(text + 4, UINT32_MAX);
    assert_int_equal(read_extensions(good(3), text, sizeof(text), &out, &err), IMGTK_ECORRUPT);
    /* Unknown extensions are passed over; a great many of them are not. */
    static uint8_t many[8 * (QCOW2_MAX_EXTENSIONS + 2)];
    for (size_t i = 0; i < sizeof(many); i += 8)
        imgtk_put_be32(many + i, 0x12345678);
    assert_int_equal(read_extensions(good(3), many, 8 * QCOW2_MAX_EXTENSIONS, &out, &err), 0);
    assert_int_equal(read_extensions(good(3), many, sizeof(many), &out, &err), IMGTK_ELIMIT);
}

static void compressed_entries_are_taken_apart(void **state)
{
    (void)state;
    struct qcow2_geometry geometry = qcow2_geometry(16, false, 4);
    /* 54 bits of offset, then 8 of further sectors. */
    struct qcow2_compressed at = qcow2_compressed(&geometry, QCOW2_COMPRESSED | UINT64_C(3) << 54 | 0x50123);
    assert_int_equal(at.offset, 0x50123);
    assert_int_equal(at.length, 4 * 512 - 0x123);
    geometry = qcow2_geometry(21, false, 4);
    at = qcow2_compressed(&geometry, QCOW2_COMPRESSED | UINT64_C(0x1fff) << 49 | ((UINT64_C(1) << 49) - 1));
    assert_int_equal(at.offset, (UINT64_C(1) << 49) - 1);
    assert_int_equal(at.length, 0x2000 * 512 - 511);
}

static void refcounts_of_every_width(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= QCOW2_MAX_REFCOUNT_ORDER; order++) {
        uint8_t block[512], before[512];
        memset(block, 0xa5, sizeof(block));
        uint64_t entries = sizeof(block) * 8 >> order, max = qcow2_refcount_max(order);
        for (uint64_t i = 0; i < entries; i++)
            qcow2_refcount_put(block, i, order, (i * UINT64_C(0x9e3779b97f4a7c15)) & max);
        for (uint64_t i = 0; i < entries; i++)
            assert_true(qcow2_refcount_get(block, i, order) == ((i * UINT64_C(0x9e3779b97f4a7c15)) & max));
        memcpy(before, block, sizeof(block));
        qcow2_refcount_put(block, 3, order, max);
        qcow2_refcount_put(block, 3, order, qcow2_refcount_get(before, 3, order));
        assert_memory_equal(before, block, sizeof(block));
    }
    static const uint8_t narrow[] = { 0x1b };
    assert_int_equal(qcow2_refcount_get(narrow, 0, 1), 3);
    assert_int_equal(qcow2_refcount_get(narrow, 3, 1), 0);
    assert_int_equal(qcow2_refcount_get(narrow, 4, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers_are_parsed),
        cmocka_unit_test(version_2_ignores_later_fields),
        cmocka_unit_test(short_files_are_refused),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(backing_name_lies_in_the_first_cluster),
        cmocka_unit_test(extended_l2_needs_large_clusters),
        cmocka_unit_test(unknown_features_are_refused_by_name),
        cmocka_unit_test(extensions_are_bounded),
        cmocka_unit_test(compressed_entries_are_taken_apart),
        cmocka_unit_test(refcounts_of_every_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
