/* Makes checksums good, without which a fuzzer would never get beyond them. */
#ifndef IMGTK_FUZZ_SEAL_H
#define IMGTK_FUZZ_SEAL_H

#include <stddef.h>
#include <stdint.h>

void seal_vpc_footer(uint8_t *footer);
void seal_vpc_header(uint8_t *header);
/* A VHDX structure of `length` bytes with its checksum at 4. */
void seal_vhdx(uint8_t *structure, size_t length);
/* Every log entry that lies whole within the log. */
void seal_vhdx_log(uint8_t *log, size_t length);
/* All of the above that are found in an image. */
void seal_image(uint8_t *image, size_t size);

#endif
