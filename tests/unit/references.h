/* A folder with an image, and with what the image may and may not name. */
#ifndef IMGTK_TEST_REFERENCES_H
#define IMGTK_TEST_REFERENCES_H

#include "chain/reference.h"
#include "context/context.h"
#include "imgtk/image.h"
#include "one_module.h"
#include "scratch.h"
#include "storage/storage.h"

/*
 * root/
 *   images/  disk  base  sub/deep  and what a test adds
 *   allowed/ library
 *   secret
 */
static struct scratch scratch;
static struct imgtk_context context;
static char *allowed[1];
static char image[PATH_MAX];

/* Whoever links context.c links the registry, whose work one_module.h does. */
void context_note(struct imgtk_context *unused, const char *format, ...)
{
    (void)unused, (void)format;
}

static inline int set_up(void **state)
{
    (void)state;
    scratch_new(&scratch);
    scratch_folder(&scratch, "images");
    scratch_folder(&scratch, "images/sub");
    scratch_folder(&scratch, "allowed");
    scratch_file(&scratch, "images/disk", "disk");
    scratch_file(&scratch, "images/base", "base");
    scratch_file(&scratch, "images/sub/deep", "deep");
    scratch_file(&scratch, "allowed/library", "library");
    scratch_file(&scratch, "secret", "secret");
    snprintf(image, sizeof(image), "%s/images/disk", scratch.root);
    memset(&context, 0, sizeof(context));
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    free(allowed[0]);
    allowed[0] = NULL;
    scratch_free(&scratch);
    return 0;
}

static inline void allow(const char *folder)
{
    free(allowed[0]);
    allowed[0] = strdup(folder);
    context.config.allow_dirs = allowed;
    context.config.allow_dir_count = 1;
}

static inline void link_to(const char *target, const char *name)
{
    assert_int_equal(symlink(target, scratch_path(&scratch, name)), 0);
}

static inline const char *absolute(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", scratch.root, name);
    return path;
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
