/* A digest of OpenSSL's libcrypto, by its name there. */
#ifndef IMGTK_DIGEST_EVP_H
#define IMGTK_DIGEST_EVP_H

#include "imgtk/digest.h"

/* length: of the digest that is expected, in bytes. */
int evp_open(const char *name, size_t length, void **handle, struct imgtk_error *err);
void evp_close(void *handle);
int evp_begin(void *handle, struct imgtk_error *err);
int evp_update(void *handle, const void *bytes, size_t length, struct imgtk_error *err);
int evp_end(void *handle, uint8_t *out, struct imgtk_error *err);

#endif
