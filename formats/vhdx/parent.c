#include <stdlib.h>
#include <string.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

struct pair {
    const uint8_t *key, *value;
    uint16_t key_length, value_length;
};

static int pair_at(const uint8_t *locator, size_t length, unsigned index, struct pair *out, struct imgtk_error *err)
{
    const uint8_t *entry = locator + VHDX_LOCATOR_ENTRIES + (size_t)index * VHDX_LOCATOR_ENTRY_SIZE;
    uint32_t key = imgtk_le32(entry), value = imgtk_le32(entry + 4);
    out->key_length = imgtk_le16(entry + 8);
    out->value_length = imgtk_le16(entry + 10);
    if (!imgtk_range_fits(key, out->key_length, length) || !imgtk_range_fits(value, out->value_length, length))
        return imgtk_fail(err, IMGTK_ECORRUPT, "entry %u of the parent locator ends beyond its %zu bytes", index,
                          length);
    out->key = locator + key;
    out->value = locator + value;
    return 0;
}

static bool key_is(const struct pair *pair, const char *name)
{
    size_t length = strlen(name);
    if (pair->key_length != 2 * length)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (imgtk_le16(pair->key + 2 * i) != (unsigned char)name[i])
            return false;
    }
    return true;
}

/* "\\?\C:\disks\base.vhdx": the prefix only switches off Windows' own rewriting of paths. */
static void use_slashes(char *path)
{
    for (char *c = path; *c; c++) {
        if (*c == '\\')
            *c = '/';
    }
    if (strncmp(path, "//?/", 4) == 0)
        memmove(path, path + 4, strlen(path + 4) + 1);
}

static int take_path(const struct pair *pair, char **out, struct imgtk_error *err)
{
    if (*out)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the parent locator has a path twice");
    *out = vhdx_utf16_to_utf8(pair->value, pair->value_length);
    if (!*out)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the parent locator");
    use_slashes(*out);
    return 0;
}

static int take_linkage(const struct pair *pair, char out[UUID_TEXT_SIZE], struct imgtk_error *err)
{
    struct vhdx_guid guid;
    char *text = vhdx_utf16_to_utf8(pair->value, pair->value_length);
    if (!text)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory for the parent locator");
    bool valid = vhdx_guid_parse(text, &guid, NULL) == 0;
    free(text);
    if (!valid)
        return imgtk_fail(err, IMGTK_ECORRUPT, "the parent's identity in the parent locator is not a GUID");
    vhdx_guid_format(&guid, out);
    return 0;
}

static int take_pair(const struct pair *pair, struct vhdx_parent *out, struct imgtk_error *err)
{
    if (key_is(pair, "parent_linkage"))
        return take_linkage(pair, out->linkage, err);
    if (key_is(pair, "parent_linkage2"))
        return take_linkage(pair, out->linkage2, err);
    if (key_is(pair, "relative_path"))
        return take_path(pair, &out->relative_path, err);
    if (key_is(pair, "volume_path"))
        return take_path(pair, &out->volume_path, err);
    if (key_is(pair, "absolute_win32_path"))
        return take_path(pair, &out->absolute_path, err);
    return 0;
}

static bool has_text(const char *path)
{
    return path && path[0];
}

static int parse_pairs(const uint8_t *locator, size_t length, struct vhdx_parent *out, struct imgtk_error *err)
{
    unsigned count = imgtk_le16(locator + VHDX_LOCATOR_COUNT);
    if (!imgtk_range_fits(VHDX_LOCATOR_ENTRIES, (uint64_t)count * VHDX_LOCATOR_ENTRY_SIZE, length))
        return imgtk_fail(err, IMGTK_ECORRUPT, "parent locator of %zu bytes cannot hold its %u entries", length, count);
    for (unsigned i = 0; i < count; i++) {
        struct pair pair;
        int status = pair_at(locator, length, i, &pair, err);
        if (!status)
            status = take_pair(&pair, out, err);
        if (status)
            return status;
    }
    if (!out->linkage[0])
        return imgtk_fail(err, IMGTK_ECORRUPT, "the parent locator has no parent_linkage");
    if (!has_text(out->relative_path) && !has_text(out->volume_path) && !has_text(out->absolute_path))
        return imgtk_fail(err, IMGTK_ECORRUPT, "the parent locator has no path");
    return 0;
}

int vhdx_parent_parse(const uint8_t *locator, size_t length, struct vhdx_parent *out, struct imgtk_error *err)
{
    *out = (struct vhdx_parent){ 0 };
    if (length < VHDX_LOCATOR_ENTRIES)
        return imgtk_fail(err, IMGTK_ECORRUPT, "parent locator of %zu bytes, at least %d needed", length,
                          VHDX_LOCATOR_ENTRIES);
    struct vhdx_guid type = vhdx_guid_at(locator);
    if (!vhdx_guid_equal(&type, VHDX_GUID_LOCATOR_TYPE)) {
        char text[UUID_TEXT_SIZE];
        vhdx_guid_format(&type, text);
        return imgtk_fail(err, IMGTK_EUNSUPPORTED, "parent locator of type %s is not known", text);
    }
    int status = parse_pairs(locator, length, out, err);
    if (status)
        vhdx_parent_free(out);
    return status;
}

void vhdx_parent_free(struct vhdx_parent *parent)
{
    free(parent->relative_path);
    free(parent->volume_path);
    free(parent->absolute_path);
    *parent = (struct vhdx_parent){ 0 };
}

int vhdx_backing(void *handle, struct imgtk_backing *out, struct imgtk_error *err)
{
    (void)err;
    struct vhdx_image *image = handle;
    if (!image->metadata.has_parent)
        return 0;
    const char *const paths[] = { image->parent.relative_path, image->parent.volume_path, image->parent.absolute_path };
    size_t count = 0;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (has_text(paths[i]))
            out->names[count++] = paths[i];
    }
    out->format = "vhdx";
    out->identity = image->parent.linkage;
    out->other_identity = image->parent.linkage2[0] ? image->parent.linkage2 : NULL;
    return 0;
}
