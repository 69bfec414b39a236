#include <errno.h>
#include <stdlib.h>

#include "imgtk/bytes.h"
#include "vhdx.h"

static const char *const subformats[] = { "dynamic", "fixed", NULL };

const struct imgtk_opt vhdx_create_opts[] = {
    { "log_size", IMGTK_OPT_SIZE, "1048576", NULL, VHDX_MIB, 4095 * VHDX_MIB, "Size of the log, whole MiB" },
    { "block_size", IMGTK_OPT_SIZE, "0", NULL, 0, VHDX_MAX_BLOCK_SIZE,
      "Size of a block, a power of two from 1M to 256M; 0 chooses one that suits the disk's size" },
    { "subformat", IMGTK_OPT_CHOICE, "dynamic", subformats, 0, 0, "How blocks are allocated" },
    { "block_state_zero", IMGTK_OPT_BOOL, "on", NULL, 0, 0,
      "Record blocks without data as zero, not as absent" },
    { "uuid", IMGTK_OPT_STRING, NULL, NULL, 0, 0, "Virtual disk ID; makes the file reproducible" },
    { NULL, IMGTK_OPT_STRING, NULL, NULL, 0, 0, NULL }
};

/* ---- Identity ------------------------------------------------------------ */

/* Spreads every bit of the input over the output; what makes GUIDs out of a seed. */
static uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

struct seed {
    uint64_t words[2];
};

static void mark_as_guid(struct vhdx_guid *guid)
{
    guid->bytes[7] = (uint8_t)((guid->bytes[7] & 0x0f) | 0x40);
    guid->bytes[8] = (uint8_t)((guid->bytes[8] & 0x3f) | 0x80);
}

/* `purpose` tells apart the GUIDs of one seed. */
static struct vhdx_guid derive(const struct seed *seed, uint64_t size, uint64_t purpose)
{
    struct vhdx_guid guid;
    uint64_t low = mix(seed->words[0] ^ mix(size ^ mix(purpose)));
    uint64_t high = mix(seed->words[1] ^ mix(low));
    imgtk_put_le64(guid.bytes, low);
    imgtk_put_le64(guid.bytes + 8, high);
    mark_as_guid(&guid);
    return guid;
}

enum { PURPOSE_DISK = 1, PURPOSE_FILE_WRITE = 2, PURPOSE_DATA_WRITE = 3 };

static void derive_all(const struct seed *seed, uint64_t size, struct vhdx_identity *out)
{
    out->disk = derive(seed, size, PURPOSE_DISK);
    out->file_write = derive(seed, size, PURPOSE_FILE_WRITE);
    out->data_write = derive(seed, size, PURPOSE_DATA_WRITE);
}

static int from_uuid(const char *text, uint64_t size, struct vhdx_identity *out, struct imgtk_error *err)
{
    struct vhdx_guid disk;
    int status = vhdx_guid_parse(text, &disk, err);
    if (status)
        return status;
    struct seed seed = { { imgtk_le64(disk.bytes), imgtk_le64(disk.bytes + 8) } };
    derive_all(&seed, size, out);
    out->disk = disk;
    return 0;
}

static int from_epoch(const char *text, uint64_t size, struct vhdx_identity *out, struct imgtk_error *err)
{
    char *end;
    errno = 0;
    unsigned long long seconds = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9')
        return imgtk_fail(err, IMGTK_EINVAL, "SOURCE_DATE_EPOCH '%s' is not a number of seconds", text);
    struct seed seed = { { seconds, mix(seconds) } };
    derive_all(&seed, size, out);
    return 0;
}

static int from_random(struct vhdx_identity *out, struct imgtk_error *err)
{
    int status = vhdx_guid_random(&out->disk, err);
    if (!status)
        status = vhdx_guid_random(&out->file_write, err);
    return status ? status : vhdx_guid_random(&out->data_write, err);
}

int vhdx_identity_from(uint64_t size, const struct imgtk_opts *opts, struct vhdx_identity *out,
                       struct imgtk_error *err)
{
    const char *uuid = imgtk_opts_text(opts, "uuid");
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    if (uuid)
        return from_uuid(uuid, size, out, err);
    if (epoch && *epoch)
        return from_epoch(epoch, size, out, err);
    return from_random(out, err);
}
