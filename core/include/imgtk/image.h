/*
 * Contexts, modules and images: what an embedding program starts with.
 *
 * A context holds the configuration, the loaded modules and the policies. An
 * image is a chain of layers: the file that was named and what lies below it.
 */
#ifndef IMGTK_IMAGE_H
#define IMGTK_IMAGE_H

#include "cancel.h"
#include "digest.h"
#include "driver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Context ------------------------------------------------------------ */

enum imgtk_reference_policy {
    IMGTK_REFERENCES_BENEATH, /* regular files beneath the folder of the image that names them, or an allowed folder */
    IMGTK_REFERENCES_ANY,
    IMGTK_REFERENCES_NONE
};

struct imgtk_context; /* set up by one thread; then shared by any number for reading */

/*
 * Reads the configuration (see imgtk.yaml(5)) and finds the module folders; loads no module.
 * IMGTK_CONFIG names a file that is read instead of the system's and the user's.
 */
IMGTK_API int imgtk_context_new(struct imgtk_context **out, struct imgtk_error *err);
IMGTK_API void imgtk_context_free(struct imgtk_context *context);

/* From "beneath", "any" or "none". */
IMGTK_API int imgtk_reference_policy_parse(const char *text, enum imgtk_reference_policy *out, struct imgtk_error *err);
IMGTK_API void imgtk_context_set_references(struct imgtk_context *context, enum imgtk_reference_policy policy);
/* The policy in force: NONE for an untrusted context, whatever was set. */
IMGTK_API enum imgtk_reference_policy imgtk_context_references(const struct imgtk_context *context);
IMGTK_API int imgtk_context_allow_dir(struct imgtk_context *context, const char *folder, struct imgtk_error *err);
/* The folders that are allowed, the configuration's first; NULL behind the last. */
IMGTK_API const char *imgtk_context_allowed_dir(const struct imgtk_context *context, size_t index);

enum imgtk_trust {
    IMGTK_TRUSTED,
    /* Images come from strangers: no reference is followed, a format that is named must be the one that is recognised,
       and new files are opened for writing alone. */
    IMGTK_UNTRUSTED,
    IMGTK_UNTRUSTED_REQUIRED /* the same, and a program that cannot confine itself shall not run */
};
IMGTK_API void imgtk_context_set_trust(struct imgtk_context *context, enum imgtk_trust trust);
IMGTK_API enum imgtk_trust imgtk_context_trust(const struct imgtk_context *context);

/* What a job may use up at most; 0: no bound. Going beyond is IMGTK_ELIMIT. */
struct imgtk_budget {
    uint64_t output;   /* bytes of all files that are written, holes included; a pipe's temporary copy may be as long */
    uint64_t metadata; /* bytes that drivers read to open a layer */
    uint64_t memory;   /* bytes, and */
    uint64_t seconds;  /* of time: limits of a process, which the program sets, not the library */
};
IMGTK_API void imgtk_context_set_budget(struct imgtk_context *context, const struct imgtk_budget *budget);
IMGTK_API const struct imgtk_budget *imgtk_context_budget(const struct imgtk_context *context);
/*
 * Opens `count` temporary files in advance, for a process that will not be able to: they are what is used when a pipe
 * has to be copied, or written out of order.
 */
IMGTK_API int imgtk_context_reserve_spools(struct imgtk_context *context, unsigned count, struct imgtk_error *err);

/* Options, as text, for every storage that a module opens ("connections=8,timeout=5"); one that it does not know is an
   error. Those of a request are parsed after them. */
IMGTK_API int imgtk_context_set_storage_options(struct imgtk_context *context, const char *text, struct imgtk_error *err);
/* Lines for -v: modules loaded, chain, copy method, policy. NULL: nobody listens. May be called from workers. */
IMGTK_API void imgtk_context_set_note(struct imgtk_context *context, void (*note)(void *, const char *), void *note_context);
/*
 * Opening an image looks at it where that may take long (a pipe that is read to its end), and so does a storage that was
 * opened since while it waits for a server: IMGTK_ECANCELLED. It must outlive what is opened; NULL: nobody cancels.
 */
IMGTK_API void imgtk_context_set_cancel(struct imgtk_context *context, const struct imgtk_cancel *cancel);
/* Workers that jobs use when they are not told: the configuration's, else the CPUs this process may use. >= 1 */
IMGTK_API unsigned imgtk_context_workers(const struct imgtk_context *context);
/* The configuration's default -o text for a format, or NULL. */
IMGTK_API const char *imgtk_context_format_options(const struct imgtk_context *context, const char *format);

/* ---- Modules ------------------------------------------------------------ */

/* One module file that was found, good or not. Strings live as long as the context. */
struct imgtk_module {
    const char *name;                        /* from the file name */
    const char *path;                        /* "(built in)" for those */
    const struct imgtk_driver *driver;       /* NULL: not a format, or skipped */
    const struct imgtk_storage_ops *storage; /* NULL: not a storage, or skipped */
    const struct imgtk_digest *digest;       /* NULL: not a digest, or skipped */
    const char *skipped;                     /* why; NULL when it is usable */
};

/* Loads every module once; *count entries, valid until the context is freed. */
IMGTK_API int imgtk_modules(struct imgtk_context *context, const struct imgtk_module **out, size_t *count,
                            struct imgtk_error *err);
/* Names every module file that would be looked at, without loading any: for --version. Disabled ones are left out. */
IMGTK_API void imgtk_module_names(struct imgtk_context *context, void (*each)(void *each_context, const char *name),
                                  void *each_context);
/* Loads the modules of all formats now, for a process that will not be able to. */
IMGTK_API void imgtk_load_formats(struct imgtk_context *context);
/* The same for one digest; NULL: the one that checksums have by default. */
IMGTK_API int imgtk_load_digest(struct imgtk_context *context, const char *name, struct imgtk_error *err);
/* Loads the module of that name (or alias) alone. IMGTK_ENOTFOUND: "Unknown file format 'x'" with a hint. */
IMGTK_API int imgtk_driver_find(struct imgtk_context *context, const char *name, const struct imgtk_driver **out,
                                struct imgtk_error *err);
/* The driver whose suffix a file name has, or NULL. Loads nothing but the candidates. */
IMGTK_API const struct imgtk_driver *imgtk_driver_for_name(struct imgtk_context *context, const char *file_name);
/*
 * The driver that recognises the content. IMGTK_EINVAL: several do (the message names them). *out is raw when none
 * does; *guessed then says so.
 */
IMGTK_API int imgtk_driver_probe(struct imgtk_context *context, struct imgtk_storage *file,
                                 const struct imgtk_driver **out, bool *guessed, struct imgtk_error *err);

/* What a driver that the registry handed out can do beyond reading; for `imgtk formats`. */
IMGTK_API bool imgtk_driver_can_write(const struct imgtk_driver *driver);
IMGTK_API bool imgtk_driver_can_check(const struct imgtk_driver *driver);
IMGTK_API bool imgtk_driver_can_edit(const struct imgtk_driver *driver);

/* The folders that modules come from, in the order of the search; NULL behind the last. */
IMGTK_API const char *imgtk_module_folder(const struct imgtk_context *context, size_t index);

/* ---- Storage ------------------------------------------------------------ */

/* What a user's name means; nothing is opened, but a storage's module may be loaded. */
enum imgtk_name_kind {
    IMGTK_NAME_PATH,       /* *path: without "file:", within the name */
    IMGTK_NAME_DESCRIPTOR, /* "-", "fd:5" */
    IMGTK_NAME_NULL,
    IMGTK_NAME_MODULE      /* a scheme, or a command in brackets, that a module takes */
};
IMGTK_API int imgtk_name_parse(struct imgtk_context *context, const char *name, enum imgtk_name_kind *kind,
                               const char **path, struct imgtk_error *err);

/* Opens what the *user* named (never what an image names: see imgtk_reference_open): a path, "-", "fd:5", "null:",
   or a module's scheme. flags: IMGTK_STORAGE_WRITABLE or 0. `options` (may be NULL): the storage's own, as text. */
IMGTK_API int imgtk_storage_open(struct imgtk_context *context, const char *name, uint32_t flags, const char *options,
                                 struct imgtk_storage **out, struct imgtk_error *err);
/*
 * A new file that appears under its name only with imgtk_storage_commit(); until then nothing is there, or what was
 * there before. Closing without commit leaves no trace.
 */
IMGTK_API int imgtk_storage_create(struct imgtk_context *context, const char *name, struct imgtk_storage **out,
                                   struct imgtk_error *err);
/* Puts the file in its place; with sync, its bytes and its name are on disk first. */
IMGTK_API int imgtk_storage_commit(struct imgtk_storage *storage, bool sync, struct imgtk_error *err);
/* Bytes in memory, for tests, fuzzers and embedding programs; `data` is copied. */
IMGTK_API int imgtk_storage_from_memory(const void *data, size_t length, struct imgtk_storage **out, struct imgtk_error *err);

/* ---- Images ------------------------------------------------------------- */

#define IMGTK_MAX_CHAIN 200 /* layers */

struct imgtk_image;

struct imgtk_image_request {
    const char *format;       /* NULL: probe */
    const char *format_opts;  /* of the driver's open_opts, as text; NULL: none */
    const char *storage_opts; /* of the storage; NULL: none */
    const char *snapshot;     /* internal snapshot; NULL: active */
    const char *backing_format; /* of a backing file whose format its overlay does not record; NULL: probe, but never raw */
    bool single_layer;        /* do not open the backing file, follow no reference */
    bool writable;
    bool check;               /* IMGTK_OPEN_CHECK */
    bool drop_cache;          /* imgtk_storage_drop_cache() for the files of all layers */
    bool in_order;            /* the disk will be read once, from its beginning to its end, by one thread at a time: a
                                 pipe whose tables come first then needs no temporary copy */
    bool allocation_depth;    /* imgtk_map.allocation_depth will be asked for: IMGTK_STORAGE_TELLS_DEPTH for the file */
};

/* `request` may be NULL (probe, whole chain, read-only). The message names the file at fault. */
IMGTK_API int imgtk_image_open(struct imgtk_context *context, const char *name,
                               const struct imgtk_image_request *request, struct imgtk_image **out,
                               struct imgtk_error *err);
IMGTK_API void imgtk_image_close(struct imgtk_image *image);
IMGTK_API uint64_t imgtk_image_size(const struct imgtk_image *image); /* virtual size of the top layer */

/* One layer of an open image; depth 0 is the one that was named. */
struct imgtk_layer {
    const char *name;                    /* as opened */
    const struct imgtk_driver *driver;
    void *handle;                        /* the driver's */
    struct imgtk_storage *file;
    uint64_t size;                       /* virtual */
    bool format_guessed;                 /* raw because nothing else matched */
};
IMGTK_API size_t imgtk_image_depth(const struct imgtk_image *image); /* number of layers, >= 1 */
IMGTK_API const struct imgtk_layer *imgtk_image_layer(const struct imgtk_image *image, size_t depth);

/* ---- Extents and bytes of a chain ---------------------------------------- */

/* An extent of the whole chain: kind is DATA or ZERO, never BACKING. */
struct imgtk_chain_extent {
    uint64_t start;
    struct imgtk_extent extent;
    size_t depth;          /* of the layer that decides; for a range that no layer allocates: the deepest that was asked */
    bool present;          /* some layer allocates it */
    uint32_t allocation_depth; /* in rows of an imgtk_map that asks for it, else not touched */
};

/* Walks a chain; each worker has its own. Remembers each layer's last extent, so a layer is asked once per extent. */
struct imgtk_walk;
IMGTK_API int imgtk_walk_new(struct imgtk_image *image, struct imgtk_walk **out, struct imgtk_error *err);
IMGTK_API void imgtk_walk_free(struct imgtk_walk *walk);
/* Asks the storage behind every PLAIN DATA extent for holes, not only where the driver recommends it. */
IMGTK_API void imgtk_walk_ask_storage(struct imgtk_walk *walk, bool always);
/*
 * The extent at offset, clipped to length and to where its layer changes. A range beyond the size of the image
 * is IMGTK_EINVAL. Equal neighbours are not merged here: see imgtk_walk_merged().
 */
IMGTK_API int imgtk_walk_next(struct imgtk_walk *walk, uint64_t offset, uint64_t length,
                              struct imgtk_chain_extent *out, struct imgtk_error *err);
/* The same, with following extents of equal kind, flags, depth and adjoining host offsets merged into it. */
IMGTK_API int imgtk_walk_merged(struct imgtk_walk *walk, uint64_t offset, uint64_t length,
                                struct imgtk_chain_extent *out, struct imgtk_error *err);

/* Reads through the walk's memory of extents; for a worker that reads ranges it has just walked. */
IMGTK_API int imgtk_walk_read(struct imgtk_walk *walk, void *buf, size_t length, uint64_t offset,
                              struct imgtk_error *err);

/* Reads bytes of the chain, zeroes filled in; [offset, offset+length) lies within the size. Thread-safe. */
IMGTK_API int imgtk_image_read(struct imgtk_image *image, void *buf, size_t length, uint64_t offset,
                               struct imgtk_error *err);

#ifdef __cplusplus
}
#endif
#endif
