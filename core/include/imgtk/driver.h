/*
 * The contract between core and a format module.
 *
 * A driver describes ONE layer of ONE image over storage. It knows nothing of
 * chains, threads or other drivers, never opens a path by itself (it asks
 * imgtk_reference_open()), never prints, never exits, and never trusts a
 * number that an image holds.
 *
 * A module exports one symbol, imgtk_driver_v1(), which returns a constant ops
 * table. The symbol's name is the ABI's major version; struct_size, the first
 * member, is its minor one: the registry copies the smaller of the two sizes
 * into a zeroed table of its own, refuses a table that lacks a required op and
 * fills each optional op with the default that is named beside it, so the rest
 * of core calls ops without a test. Members are only ever appended.
 */
#ifndef IMGTK_DRIVER_H
#define IMGTK_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "opts.h"
#include "storage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Probing ------------------------------------------------------------ */

/* The first and the last bytes of a file, as many as there are (at most IMGTK_PROBE_SIZE each; they may overlap). */
#define IMGTK_PROBE_SIZE 4096
struct imgtk_probe {
    const uint8_t *head;
    size_t head_length;
    const uint8_t *tail;     /* the last tail_length bytes; NULL when the storage is sequential */
    size_t tail_length;
    uint64_t size;           /* of the file; 0 when the storage is sequential */
};

/*
 * Confidence that a probe returns. Two formats that both answer YES make the
 * image ambiguous; MAYBE loses to YES; raw is what is left when all say NO.
 */
enum imgtk_probe_result { IMGTK_PROBE_NO = 0, IMGTK_PROBE_MAYBE = 1, IMGTK_PROBE_YES = 2 };

/* ---- Extents ------------------------------------------------------------ */

enum imgtk_extent_kind {
    IMGTK_EXTENT_DATA,    /* this layer holds the bytes */
    IMGTK_EXTENT_ZERO,    /* this layer says: zeroes */
    IMGTK_EXTENT_BACKING  /* this layer says nothing: the backing layer's bytes, or zeroes without one */
};

enum {
    IMGTK_EXTENT_COMPRESSED = 1u << 0,
    /* file and host_offset are valid: guest byte i of the extent is byte host_offset + i of that storage.
       On a ZERO or BACKING extent: space is reserved there, its content does not matter. */
    IMGTK_EXTENT_PLAIN = 1u << 1,
    /* The storage behind a PLAIN DATA extent may well have holes worth asking for (preallocated metadata). */
    IMGTK_EXTENT_ASK_STORAGE = 1u << 2,
    /* For BACKING and ZERO: nothing is allocated for it in this layer (map prints present: false unless a layer below is). */
    IMGTK_EXTENT_UNALLOCATED = 1u << 3,
    /* Set by core on a ZERO extent that its layer calls DATA: the storage behind it has a hole there. */
    IMGTK_EXTENT_STORAGE_HOLE = 1u << 4
};

struct imgtk_extent {
    uint64_t length;               /* > 0; may reach beyond what was asked: core clips */
    enum imgtk_extent_kind kind;
    uint32_t flags;
    struct imgtk_storage *file;    /* PLAIN only; belongs to the image */
    uint64_t host_offset;          /* PLAIN only */
};

/* ---- References to other files ------------------------------------------ */

/*
 * What an image may refer to. One object per image; it knows the folder of the
 * image that holds the reference and the reference policy in force.
 */
struct imgtk_references;

/*
 * Opens a file that the image names (data file, extent, parent), read-only
 * unless flags has IMGTK_STORAGE_WRITABLE, subject to the policy. The refusal
 * (IMGTK_EREFUSED) names the file and the option that would allow it. The
 * caller closes the result with imgtk_storage_close().
 */
IMGTK_API int imgtk_reference_open(struct imgtk_references *refs, const char *name, uint32_t flags,
                                   struct imgtk_storage **out, struct imgtk_error *err);
/*
 * For create: makes a file beside the image ("disk-f001.vmdk"); `name` has no
 * slash unless the user gave it as an option. It appears under its name
 * together with the image, when the job commits; core closes it then.
 */
IMGTK_API int imgtk_reference_create(struct imgtk_references *refs, const char *name, struct imgtk_storage **out,
                                     struct imgtk_error *err);
/* For create: an unnamed temporary file, as imgtk_storage_spool() makes; the driver closes it. */
IMGTK_API int imgtk_reference_spool(struct imgtk_references *refs, struct imgtk_storage **out, struct imgtk_error *err);
/* The image's own file name without folders ("disk.vmdk"); for extent names in descriptors. */
IMGTK_API const char *imgtk_references_image_name(const struct imgtk_references *refs);
IMGTK_API void imgtk_storage_close(struct imgtk_storage *storage); /* NULL is allowed */

/* What lies below a layer. Strings belong to the driver and live as long as the open image. */
#define IMGTK_BACKING_NAMES 8
struct imgtk_backing {
    /* Tried in order until one exists; NULL-terminated when fewer; names[0] NULL: none. */
    const char *names[IMGTK_BACKING_NAMES];
    const char *format;    /* NULL: the image does not record it (core then refuses to guess raw) */
    const char *identity;  /* the parent's identity() must equal it; NULL: not checked */
    const char *other_identity; /* or this one; NULL: there is no other */
};

/* ---- Information -------------------------------------------------------- */

/*
 * A tree of named values that `info` prints as JSON or as text. Keys are
 * qemu-img's where it has them ("compat", "lazy-refcounts"). Inside a list,
 * key is NULL. Running out of memory is remembered and reported by core.
 */
struct imgtk_info;
IMGTK_API void imgtk_info_text(struct imgtk_info *info, const char *key, const char *value);
IMGTK_API void imgtk_info_number(struct imgtk_info *info, const char *key, uint64_t value);
IMGTK_API void imgtk_info_signed(struct imgtk_info *info, const char *key, int64_t value);
IMGTK_API void imgtk_info_bool(struct imgtk_info *info, const char *key, bool value);
IMGTK_API void imgtk_info_begin_list(struct imgtk_info *info, const char *key);
IMGTK_API void imgtk_info_begin_object(struct imgtk_info *info, const char *key);
IMGTK_API void imgtk_info_end(struct imgtk_info *info);

/* What every image has; a driver fills what it knows and leaves the rest as it was (zero). */
struct imgtk_layer_info {
    uint64_t cluster_size;        /* cluster, grain or block; 0: the format has none */
    bool dirty;                   /* qemu-img's dirty-flag */
    bool encrypted;
    bool compressed;              /* the format stores all data compressed (streamOptimized) */
    struct imgtk_info *specific;  /* the "data" of format-specific; empty: none is printed */
    struct imgtk_info *snapshots; /* a list is open in it: one object per snapshot, keys as qemu-img's; empty: none */
    bool can_have_bitmaps;        /* a persistent dirty bitmap could be stored in it, whether it has one or not */
};

/* ---- Checking ----------------------------------------------------------- */

enum { IMGTK_REPAIR_LEAKS = 1u << 0, IMGTK_REPAIR_ERRORS = 1u << 1 };

/* Counts are clusters (grains, blocks) unless said otherwise; qemu-img's meanings. */
struct imgtk_check {
    uint32_t repair;              /* in: IMGTK_REPAIR_*; the image was opened writable when not 0 */
    unsigned workers;             /* in: how many threads may be used, >= 1 */
    void (*report)(void *context, const char *message); /* in: one line per finding; never NULL */
    void *context;                /* in */
    uint64_t image_end_offset;    /* out, bytes; 0: not told */
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t corruptions, leaks, check_errors, corruptions_fixed, leaks_fixed;
};

/* ---- Threads ------------------------------------------------------------ */

/*
 * Runs work(context) in `count` threads (at most IMGTK_MAX_WORKERS), the caller's among them, and waits for all. A
 * thread that cannot be had is done without.
 */
#define IMGTK_MAX_WORKERS 64u
IMGTK_API void imgtk_workers_run(unsigned count, void (*work)(void *context), void *context);

/* ---- Opening ------------------------------------------------------------ */

enum {
    IMGTK_OPEN_WRITABLE = 1u << 0,
    /* Metadata only (info, check, map of one layer): no reference may be followed; a driver that needs one to
       read data opens without it, and read() then fails with IMGTK_EREFUSED. */
    IMGTK_OPEN_NO_REFERENCES = 1u << 1,
    /* check: open an image whose dirty or corrupt bit is set and say so later; no effect otherwise. */
    IMGTK_OPEN_CHECK = 1u << 2
};

struct imgtk_open {
    struct imgtk_storage *file;       /* stays open until close(); belongs to core */
    const struct imgtk_opts *opts;    /* of the driver's open_opts; lives during open() only */
    struct imgtk_references *refs;    /* lives until close() */
    const char *snapshot;             /* internal snapshot to open, by name or id; NULL: the active state */
    uint32_t flags;                   /* IMGTK_OPEN_* */
};

/* ---- Creating ----------------------------------------------------------- */

/*
 * The turn of one write or zero among all. Work items have an order (that of guest
 * offsets); a driver takes the turn for the short part that decides *where*
 * data go, so that the same input makes the same file whatever the number of
 * workers. begin blocks until all earlier items have ended theirs; end lets
 * the next go on. Each at most once per call; core ends a turn that the
 * driver did not take. A driver that streams writes its bytes within the turn.
 * Do the slow part (compression) in prepare(), or before begin, and the bulk I/O after end.
 */
struct imgtk_turn;
IMGTK_API int imgtk_turn_begin(struct imgtk_turn *turn, struct imgtk_error *err); /* IMGTK_ECANCELLED: another worker failed */
IMGTK_API void imgtk_turn_end(struct imgtk_turn *turn);

/*
 * What will be written, known before it is: runs in ascending order, each a
 * multiple of the target's unit (but at the end of the disk), everything
 * between them a hole. A planned run may still turn out to be zero when read.
 */
struct imgtk_plan;
/* The first planned run at or after offset; *length 0: no more. May be called again from any offset; one thread at a time. */
IMGTK_API int imgtk_plan_next(struct imgtk_plan *plan, uint64_t unit, uint64_t offset, uint64_t *start,
                              uint64_t *length, struct imgtk_error *err);

enum {
    IMGTK_CREATE_COMPRESS = 1u << 0,
    IMGTK_CREATE_STREAM = 1u << 1,     /* `file` is sequential: bytes in order, none twice; writes come in guest order */
    IMGTK_CREATE_EMPTY = 1u << 2,      /* nothing will be written (imgtk create); finish follows create */
    IMGTK_CREATE_FULL = 1u << 3,       /* zeroes that are written stay allocated (-S 0); without it a driver may drop them */
    IMGTK_CREATE_RESUME = 1u << 4      /* `file` may hold what an interrupted writer left; see IMGTK_DRIVER_RESUME */
};

struct imgtk_create {
    struct imgtk_storage *file;      /* empty file, or a device or an existing file that is to be overwritten */
    uint64_t size;                   /* virtual size, bytes */
    const struct imgtk_opts *opts;   /* of the driver's create_opts; lives during create() only */
    struct imgtk_references *refs;   /* lives until writer_close() */
    struct imgtk_plan *plan;         /* lives until writer_close(); NULL when IMGTK_CREATE_EMPTY */
    uint32_t flags;                  /* IMGTK_CREATE_* */
    unsigned workers;                /* how many threads will call write() at once, >= 1 */
    void (*note)(void *context, const char *message); /* for -v: a line about a choice made; never NULL */
    void *note_context;
    const char *backing_identity;    /* identity() of the backing image named by the options; NULL: none or not opened */
    /* out: */
    uint32_t unit;                   /* bytes, a power of two up to 2 MiB: every write and zero covers whole units, but at
                                        the end of the disk */
    bool compresses;                 /* what is written is compressed though IMGTK_CREATE_COMPRESS was not set */
};

/* One piece of guest data: whole units, never all zero unless the user asked for full allocation (-S 0). */
struct imgtk_write {
    const void *buf;
    size_t length;               /* bytes, > 0, <= 4 MiB; for place() <= 16 MiB */
    uint64_t offset;             /* guest offset, a multiple of the unit */
    struct imgtk_turn *turn;
};

/* measure: what create + writing the plan would take. */
struct imgtk_measure {
    uint64_t required;           /* bytes for the planned data */
    uint64_t fully_allocated;    /* bytes if every unit were written */
    bool upper_bound;            /* required is an upper bound (compression), not exact */
    /* The size, in bytes, of the one file that there is after create, writing the plan and finish, where there was none
       before and no planned unit turns out to be zero. Not known: it depends on the data, or there are several files. */
    bool file_size_known;
    uint64_t file_size;
    bool can_have_bitmaps;       /* as in struct imgtk_layer_info, of the new image */
};

/* ---- Editing an image that is there -------------------------------------- */

/*
 * One thread edits a handle that was opened with IMGTK_OPEN_WRITABLE: edit_begin, any of the changes, edit_commit, and
 * so on. Until edit_commit returns 0 the file holds the image as it was, whatever interrupts the process, but for bytes
 * that were written or zeroed where this layer held bytes of its own (and raw, without metadata, may be longer already);
 * after it, all the changes. Others may read meanwhile, but not during edit_commit; read(), extent() and size() tell of
 * a change only after it. What was not committed is lost with the next edit_begin, or with close().
 */
struct imgtk_edit {
    bool same_disk; /* in: the guest's bytes will read as before, so that nothing that records changes is concerned */
    /* out, bytes, a power of two <= 2 MiB: what is written and zeroed covers whole units, but at the end of the disk */
    uint32_t unit;
};

/* How far new bytes of a disk are provided for before they are written. */
enum imgtk_allocation {
    IMGTK_ALLOCATE_METADATA, /* they have their places; the file may have holes there */
    IMGTK_ALLOCATE_SPACE,    /* the file system has reserved them too */
    IMGTK_ALLOCATE_FULL      /* the same, by writing zeroes where it cannot reserve */
};

enum imgtk_snapshot_action { IMGTK_SNAPSHOT_CREATE, IMGTK_SNAPSHOT_APPLY, IMGTK_SNAPSHOT_DELETE };

struct imgtk_snapshot_change {
    enum imgtk_snapshot_action action;
    const char *name;              /* of the new snapshot; else the id or, where no snapshot has that, the name of one */
    uint32_t date_sec, date_nsec;  /* CREATE: since 1970 */
};

/* ---- The driver --------------------------------------------------------- */

enum {
    IMGTK_DRIVER_PARALLEL = 1u << 0,  /* write() and zero() may be called by several workers at once */
    IMGTK_DRIVER_STREAM = 1u << 1,    /* can write to a sequential storage */
    IMGTK_DRIVER_COMPRESS = 1u << 2,  /* honours IMGTK_CREATE_COMPRESS */
    IMGTK_DRIVER_STREAM_READ = 1u << 3, /* open() takes a sequential storage; in_order() then tells whether that will do */
    IMGTK_DRIVER_NO_PROBE_WRITE = 1u << 4, /* never chosen by probing for writing (raw) */
    IMGTK_DRIVER_FIXED_PLACES = 1u << 5, /* where guest bytes lie is known before they are: place() allocates nothing */
    /* write() leaves out the units of its data that are all zero, unless IMGTK_CREATE_FULL; asked of it when it compresses */
    IMGTK_DRIVER_DROPS_ZEROES = 1u << 6,
    /* Calling place() and zero() again, unit by unit, for what an interrupted writer wrote makes a new writer go on
       where it was: its places depend on the order of the units and on nothing else. create() gets
       IMGTK_CREATE_RESUME, leaves the content of the file alone and refuses options for which that does not hold. */
    IMGTK_DRIVER_RESUME = 1u << 7,
    /* write() may get the pages of a source file, which others change meanwhile, where it does not compress: it passes them
       on, and decides once what it finds out about them (imgtk_is_zero() will do), since that may be another thing then. */
    IMGTK_DRIVER_BYTES_MAY_CHANGE = 1u << 8
};

struct imgtk_driver {
    size_t struct_size;
    const char *name;                    /* "qcow2": also the module's file name without ".so" */
    const char *description;             /* one line */
    const char *version;                 /* of the module */
    uint32_t flags;                      /* IMGTK_DRIVER_* */
    const char *const *suffixes;         /* file name endings without the dot, NULL-terminated; may be NULL */
    const char *const *aliases;          /* other names for -f and -O ("vhd"), NULL-terminated; may be NULL */
    const struct imgtk_opt *open_opts;   /* may be NULL */
    const struct imgtk_opt *create_opts; /* may be NULL */

    /* Required. A handle is used by one open image; size, read and extent may run concurrently on it. */
    enum imgtk_probe_result (*probe)(const struct imgtk_probe *probe);
    int (*open)(const struct imgtk_open *args, void **handle, struct imgtk_error *err);
    void (*close)(void *handle);
    uint64_t (*size)(void *handle);      /* virtual size in bytes; need not be a multiple of anything */
    /* Fills buf with this layer's bytes [offset, offset + length), which lie within size; BACKING ranges with zeroes. */
    int (*read)(void *handle, void *buf, size_t length, uint64_t offset, struct imgtk_error *err);

    /* Optional; the default is named. */
    /* The extent that begins at offset (< size), with length a hint of how far the caller cares. Default: all DATA. */
    int (*extent)(void *handle, uint64_t offset, uint64_t length, struct imgtk_extent *out, struct imgtk_error *err);
    int (*backing)(void *handle, struct imgtk_backing *out, struct imgtk_error *err);  /* default: none */
    /* A text that a child records to recognise this image (a UUID, a CID), at most 63 characters. Default: "" */
    int (*identity)(void *handle, char out[64], struct imgtk_error *err);
    int (*info)(void *handle, struct imgtk_layer_info *out, struct imgtk_error *err);  /* default: leaves *out alone */
    int (*check)(void *handle, struct imgtk_check *check, struct imgtk_error *err);    /* default: IMGTK_EUNSUPPORTED */
    /* Whether reading the disk once, from its beginning to its end, reads the data of `file` in that way too, but for
       what in_order() itself has read and for steps back of at most 2 MiB. Default: no. */
    int (*in_order)(void *handle, bool *out, struct imgtk_error *err);

    /* Writing a new image; default: the format cannot be written. The writer is a handle of its own. */
    int (*create)(struct imgtk_create *args, void **writer, struct imgtk_error *err);
    int (*write)(void *writer, const struct imgtk_write *write, struct imgtk_error *err);
    /* The range reads as zeroes. Called only where a hole would read otherwise (a backing file below), or for full
       allocation. May be called by several workers at once, like write(), and has its turn as one. Default: success,
       nothing to do. */
    int (*zero)(void *writer, uint64_t offset, uint64_t length, struct imgtk_turn *turn, struct imgtk_error *err);
    /* Writes what makes the image valid, last. After it core syncs and gives the file its name. */
    int (*finish)(void *writer, struct imgtk_error *err);
    void (*writer_close)(void *writer);  /* always, after finish or instead of it */
    /* plan as in create; opts of create_opts; *out is cleared. Default: IMGTK_EUNSUPPORTED */
    int (*measure)(struct imgtk_create *args, struct imgtk_measure *out, struct imgtk_error *err);
    /*
     * Where the units of `write` (whose buf is NULL) will lie plainly, so that core lets the kernel copy them there
     * instead of calling write(). Default: IMGTK_EUNSUPPORTED, and core calls write().
     */
    int (*place)(void *writer, const struct imgtk_write *write, struct imgtk_storage **file, uint64_t *host_offset,
                 struct imgtk_error *err);

    /*
     * Editing, see struct imgtk_edit. edit_begin goes with edit_commit; the others have defaults of their own, which
     * say IMGTK_EUNSUPPORTED (edit_begin: the format cannot be changed in place). An image that contradicts itself is
     * IMGTK_ECORRUPT at the first change that depends on it.
     */
    int (*edit_begin)(void *handle, struct imgtk_edit *edit, struct imgtk_error *err);
    /* Whole units of this layer's bytes, within the new size. */
    int (*edit_write)(void *handle, const void *buf, size_t length, uint64_t offset, struct imgtk_error *err);
    int (*edit_zero)(void *handle, uint64_t offset, uint64_t length, struct imgtk_error *err);
    /* The layer then says nothing anywhere: everything comes from its backing file. */
    int (*edit_empty)(void *handle, struct imgtk_error *err);
    /* The virtual size in bytes. What is beyond a smaller one is gone; what a larger one adds is not allocated. */
    int (*edit_resize)(void *handle, uint64_t size, struct imgtk_error *err);
    /* What backing() tells from now on; name NULL: no backing file; format NULL: not recorded. Bytes stay as they are. */
    int (*edit_backing)(void *handle, const char *name, const char *format, struct imgtk_error *err);
    /* The only change between edit_begin and edit_commit. IMGTK_ENOTFOUND: no such snapshot. */
    int (*edit_snapshot)(void *handle, const struct imgtk_snapshot_change *change, struct imgtk_error *err);
    int (*edit_commit)(void *handle, struct imgtk_error *err);
    /* --- end of driver ABI 1.0 --- */

    /* After edit_resize: all from `offset`, the size before it, to the end of the disk. The bytes stay as they are. */
    int (*edit_allocate)(void *handle, uint64_t offset, enum imgtk_allocation how, struct imgtk_error *err);
    /* --- end of driver ABI 1.1 --- */

    /*
     * write() in two parts, for who compresses: all three or none. prepare() does what needs no turn (it gets none), ahead
     * and in any order, for several writes at once. *prepared NULL: nothing, and write() follows. The bytes in buf stay
     * until write_prepared() has taken its turn and written. Whether it fails or not, `prepared` is gone then. discard()
     * is for what will not be written. Default: write() alone.
     */
    int (*prepare)(void *writer, const struct imgtk_write *write, void **prepared, struct imgtk_error *err);
    int (*write_prepared)(void *writer, const struct imgtk_write *write, void *prepared, struct imgtk_error *err);
    void (*discard)(void *writer, void *prepared);
    /* --- end of driver ABI 1.2 --- */
};

/* The symbol that a module exports. */
#define IMGTK_DRIVER_SYMBOL "imgtk_driver_v1"
IMGTK_API const struct imgtk_driver *imgtk_driver_v1(void);

#ifdef __cplusplus
}
#endif
#endif
