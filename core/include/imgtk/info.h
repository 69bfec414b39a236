/*
 * Trees of named values: what a driver tells about an image (see driver.h for
 * the calls that fill one), and what a program does with them.
 */
#ifndef IMGTK_INFO_H
#define IMGTK_INFO_H

#include "image.h"

#ifdef __cplusplus
extern "C" {
#endif

enum imgtk_info_kind {
    IMGTK_INFO_TEXT,
    IMGTK_INFO_NUMBER,
    IMGTK_INFO_BOOL,
    IMGTK_INFO_LIST,
    IMGTK_INFO_OBJECT
};

/*
 * An empty tree whose root is a LIST or an OBJECT. NULL: out of memory. Text in it is UTF-8; other bytes become
 * U+FFFD.
 */
IMGTK_API struct imgtk_info *imgtk_info_new(enum imgtk_info_kind root);
IMGTK_API void imgtk_info_free(struct imgtk_info *info); /* NULL is allowed */
IMGTK_API bool imgtk_info_empty(const struct imgtk_info *info);
/* Puts another tree under a key (NULL in a list); they share it from then on, so `part` must be complete. */
IMGTK_API void imgtk_info_add(struct imgtk_info *info, const char *key, const struct imgtk_info *part);
/* Fails when memory ran out, or a driver nested too deeply, while the tree was filled. */
IMGTK_API int imgtk_info_status(const struct imgtk_info *info, struct imgtk_error *err);

/* The document as JSON, indented by 4 spaces, keys in the order they were added; free() it. NULL: out of memory. */
IMGTK_API char *imgtk_info_json(const struct imgtk_info *info);

/* One member of a tree, for printing it as text. */
struct imgtk_info_value {
    enum imgtk_info_kind kind;
    const char *key;    /* NULL in a list */
    const char *text;   /* TEXT */
    int64_t number;     /* NUMBER; a number above INT64_MAX is told as INT64_MAX */
    bool truth;         /* BOOL */
    void *node;         /* LIST, OBJECT: pass to imgtk_info_members() */
};
/*
 * Calls `member` for each member of a list or object, in order, until it
 * returns not 0, which is then the result. node NULL: the root's members.
 */
IMGTK_API int imgtk_info_members(const struct imgtk_info *info, void *node,
                                 int (*member)(void *context, const struct imgtk_info_value *value), void *context);

/*
 * Asks the driver of one layer. On success out->specific and out->snapshots
 * are trees that the caller frees with imgtk_info_free(), empty when there is
 * nothing to tell.
 */
IMGTK_API int imgtk_layer_describe(const struct imgtk_layer *layer, struct imgtk_layer_info *out,
                                   struct imgtk_error *err);
/* Asks the driver of the top layer to check it; IMGTK_EUNSUPPORTED: the format has no checks. */
IMGTK_API int imgtk_image_check(struct imgtk_image *image, struct imgtk_check *check, struct imgtk_error *err);

#ifdef __cplusplus
}
#endif
#endif
