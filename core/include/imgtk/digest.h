/*
 * The contract between core and a digest module: one hash function, with the library that computes it.
 *
 * Digests are modules so that a program that hashes nothing need not load that library. A module lies in the folder
 * "digest" of a module folder, and its file name is the name of the digest: `-a sha256` loads digest/sha256.so alone.
 * It exports one symbol, imgtk_digest_v1(); see driver.h for the rules of struct_size, which are the same.
 */
#ifndef IMGTK_DIGEST_H
#define IMGTK_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define IMGTK_DIGEST_MAX 64 /* bytes */
#define IMGTK_DIGEST_DEFAULT "sha256"

struct imgtk_digest {
    size_t struct_size;
    const char *name;        /* "sha256": also the module's file name without ".so" */
    const char *description; /* one line */
    const char *version;     /* of the module */
    size_t length;           /* bytes of a digest, 1 to IMGTK_DIGEST_MAX */

    /* Required. A handle computes one digest after the other and belongs to one thread at a time. */
    int (*open)(void **handle, struct imgtk_error *err);
    void (*close)(void *handle);
    int (*begin)(void *handle, struct imgtk_error *err);
    int (*update)(void *handle, const void *bytes, size_t length, struct imgtk_error *err);
    int (*end)(void *handle, uint8_t *out, struct imgtk_error *err); /* out: `length` bytes */
    /* --- end of digest ABI 1.0 --- */
};

/* The symbol that a module exports. */
#define IMGTK_DIGEST_SYMBOL "imgtk_digest_v1"
IMGTK_API const struct imgtk_digest *imgtk_digest_v1(void);

#ifdef __cplusplus
}
#endif
#endif
