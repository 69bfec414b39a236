/* Digests as text. */
#ifndef IMGTK_CLI_CHECKSUM_VALUE_H
#define IMGTK_CLI_CHECKSUM_VALUE_H

#include <imgtk/jobs.h>
#include <stdio.h>

#define CHECKSUM_TEXT (2 * IMGTK_DIGEST_MAX + 1)

/* Hexadecimal, lower case. */
void checksum_format(const struct imgtk_digest_value *digest, char out[CHECKSUM_TEXT]);
/* The line that sha256sum prints: the digest, two blanks, the name. */
void checksum_print(FILE *to, const struct imgtk_digest_value *digest, const char *name);

#endif
