#include "evp.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

struct evp {
    EVP_MD *digest; /* fetched once: a look-up per block would cost more than a small block */
    EVP_MD_CTX *state;
};

static int fail(struct imgtk_error *err, const char *what)
{
    char reason[256];
    ERR_error_string_n(ERR_get_error(), reason, sizeof(reason));
    return imgtk_fail(err, IMGTK_EIO, "OpenSSL %s: %s", what, reason);
}

void evp_close(void *handle)
{
    struct evp *evp = handle;
    EVP_MD_CTX_free(evp->state);
    EVP_MD_free(evp->digest);
    free(evp);
}

/* A build of OpenSSL, or its configuration, may leave a digest out. */
int evp_open(const char *name, size_t length, void **handle, struct imgtk_error *err)
{
    struct evp *evp = calloc(1, sizeof(*evp));
    if (!evp)
        return imgtk_fail(err, IMGTK_ENOMEM, "out of memory");
    evp->digest = EVP_MD_fetch(NULL, name, NULL);
    evp->state = EVP_MD_CTX_new();
    int status = 0;
    if (!evp->digest)
        status = imgtk_fail(err, IMGTK_EUNSUPPORTED, "the OpenSSL of this machine does not offer %s", name);
    else if (!evp->state || (size_t)EVP_MD_get_size(evp->digest) != length)
        status = fail(err, "cannot begin");
    if (status) {
        evp_close(evp);
        return status;
    }
    *handle = evp;
    return 0;
}

int evp_begin(void *handle, struct imgtk_error *err)
{
    struct evp *evp = handle;
    return EVP_DigestInit_ex2(evp->state, evp->digest, NULL) == 1 ? 0 : fail(err, "cannot begin a digest");
}

int evp_update(void *handle, const void *bytes, size_t length, struct imgtk_error *err)
{
    struct evp *evp = handle;
    return EVP_DigestUpdate(evp->state, bytes, length) == 1 ? 0 : fail(err, "cannot go on with a digest");
}

int evp_end(void *handle, uint8_t *out, struct imgtk_error *err)
{
    struct evp *evp = handle;
    return EVP_DigestFinal_ex(evp->state, out, NULL) == 1 ? 0 : fail(err, "cannot end a digest");
}
