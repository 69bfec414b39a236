/* `nbdkit imgtk`: any image that imgtk reads as an export, with its holes. */
#include "plugin.h"

#include <errno.h>
#include <imgtk/info.h>
#include <imgtk/version.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "settings.h"
#include "walks.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* The bounds of the protocol for a block that a client should prefer. */
enum { MIN_PREFERRED = 512, MAX_PREFERRED = 32 << 20, DEFAULT_PREFERRED = 64 << 10 };

/* nbdkit serves one set of parameters per process, and hands its plugins no place of their own. */
static struct plugin {
    struct imgtk_context *context;
    struct settings settings;
    struct imgtk_image *image;
    uint32_t preferred_block;
    struct walks walks;
} plugin;

static int errno_of(const struct imgtk_error *err)
{
    if (err->os_errno)
        return err->os_errno;
    return err->status == IMGTK_ENOMEM ? ENOMEM : EIO;
}

int plugin_fail(const char *what, const struct imgtk_error *err)
{
    nbdkit_error("%s%s%s", what ? what : "", what ? ": " : "", err->message);
    nbdkit_set_error(errno_of(err));
    return -1;
}

/* ---- The configuration -------------------------------------------------------- */

static void note(void *context, const char *message)
{
    (void)context;
    nbdkit_debug("%s", message);
}

static int need_context(void)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (plugin.context)
        return 0;
    if (imgtk_context_new(&plugin.context, &err))
        return plugin_fail(NULL, &err);
    imgtk_context_set_note(plugin.context, note, NULL);
    return 0;
}

static int config(const char *key, const char *value)
{
    return need_context() ? -1 : settings_take(&plugin.settings, plugin.context, key, value);
}

/* nbdkit takes the standard descriptors for itself, and the image is opened more than once. */
static bool is_pipe(const char *name)
{
    struct stat st;
    return strcmp(name, "-") == 0 || strncmp(name, "fd:", 3) == 0 ||
           (stat(name, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)));
}

static int config_complete(void)
{
    const char *file = plugin.settings.file;
    if (!file)
        nbdkit_error("no image: give its name as file=FILE");
    else if (is_pipe(file))
        nbdkit_error("%s: what can be read only once cannot be served", file);
    else
        return 0;
    return -1;
}

static void dump_plugin(void)
{
    printf("imgtk_version=%s\n", imgtk_version());
}

/* ---- Opening the image --------------------------------------------------------- */

static void close_image(void)
{
    if (!plugin.image)
        return;
    walks_free(&plugin.walks);
    imgtk_image_close(plugin.image);
    plugin.image = NULL;
}

/* Reading whole clusters is what costs least where they are compressed. */
static int choose_block(struct imgtk_error *err)
{
    struct imgtk_layer_info info;
    int status = imgtk_layer_describe(imgtk_image_layer(plugin.image, 0), &info, err);
    if (status)
        return status;
    imgtk_info_free(info.specific);
    imgtk_info_free(info.snapshots);
    uint64_t size = info.cluster_size;
    bool fits = size >= MIN_PREFERRED && size <= MAX_PREFERRED && (size & (size - 1)) == 0;
    plugin.preferred_block = fits ? (uint32_t)size : DEFAULT_PREFERRED;
    return 0;
}

static int open_image(void)
{
    struct imgtk_error err = IMGTK_ERROR_INIT;
    if (imgtk_image_open(plugin.context, plugin.settings.file, &plugin.settings.request, &plugin.image, &err))
        return plugin_fail(NULL, &err);
    walks_init(&plugin.walks, plugin.image);
    return choose_block(&err) ? plugin_fail(plugin.settings.file, &err) : 0;
}

/* An error is seen only before nbdkit goes into the background, and a network storage's threads do not go with it. */
static int get_ready(void)
{
    int status = open_image();
    close_image();
    return status;
}

static int after_fork(void)
{
    return open_image();
}

/* Also after an error at any point. */
static void unload(void)
{
    close_image();
    imgtk_context_free(plugin.context);
}

/* ---- Serving ---------------------------------------------------------------------- */

static void *open_connection(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
    (void)handle;
    return (int64_t)imgtk_image_size(plugin.image);
}

static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NONE;
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = plugin.preferred_block;
    *maximum = UINT32_MAX;
    return 0;
}

static int pread_image(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct walk *walk;
    int status = walks_take(&plugin.walks, &walk, &err);
    if (status)
        return plugin_fail(NULL, &err);
    status = imgtk_walk_read(walk->walk, buf, count, offset, &err);
    walks_give_back(&plugin.walks, walk);
    return status ? plugin_fail(NULL, &err) : 0;
}

/* A hole where no layer keeps space for the range, or where the file below has none. */
static uint32_t type_of(const struct imgtk_chain_extent *row)
{
    const struct imgtk_extent *extent = &row->extent;
    if (extent->kind == IMGTK_EXTENT_DATA)
        return 0;
    bool reserved = (extent->flags & IMGTK_EXTENT_PLAIN) && !(extent->flags & IMGTK_EXTENT_STORAGE_HOLE);
    return NBDKIT_EXTENT_ZERO | (reserved ? 0 : NBDKIT_EXTENT_HOLE);
}

static int tell_extents(struct imgtk_walk *walk, uint64_t offset, uint64_t length, bool only_one,
                        struct nbdkit_extents *extents)
{
    for (uint64_t end = offset + length; offset < end;) {
        struct imgtk_error err = IMGTK_ERROR_INIT;
        struct imgtk_chain_extent row;
        if (imgtk_walk_merged(walk, offset, end - offset, &row, &err))
            return plugin_fail(NULL, &err);
        if (nbdkit_add_extent(extents, offset, row.extent.length, type_of(&row)))
            return -1;
        if (only_one)
            break;
        offset += row.extent.length;
    }
    return 0;
}

static int extents_of_image(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                            struct nbdkit_extents *extents)
{
    (void)handle;
    struct imgtk_error err = IMGTK_ERROR_INIT;
    struct walk *walk;
    if (walks_take(&plugin.walks, &walk, &err))
        return plugin_fail(NULL, &err);
    int result = tell_extents(walk->walk, offset, count, flags & NBDKIT_FLAG_REQ_ONE, extents);
    walks_give_back(&plugin.walks, walk);
    return result;
}

static struct nbdkit_plugin table = {
    .name = "imgtk",
    .longname = "virtual disk images, by imgtk",
    .version = IMGTK_VERSION,
    .description = "Serves qcow2, VMDK, VHD, VHDX, VDI and raw images with what they are based on, read-only.",
    .config_help = SETTINGS_HELP,
    .magic_config_key = "file",
    .config = config,
    .config_complete = config_complete,
    .dump_plugin = dump_plugin,
    .get_ready = get_ready,
    .after_fork = after_fork,
    .unload = unload,
    .open = open_connection,
    .get_size = get_size,
    .block_size = block_size,
    .can_multi_conn = yes, /* nothing is ever written */
    .can_extents = yes,
    .can_cache = can_cache,
    .pread = pread_image,
    .extents = extents_of_image,
};

NBDKIT_REGISTER_PLUGIN(table)
