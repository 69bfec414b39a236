/* Printing: messages in order, sizes for people, fast numbers for machines. */
#ifndef IMGTK_CLI_OUTPUT_H
#define IMGTK_CLI_OUTPUT_H

#include <stdio.h>

#include "cli.h"

/*
 * "program: message" on stderr, after everything that was printed before; what text_pass() says no to becomes '?'.
 * Returns CLI_FAILED.
 */
int cli_error(const struct cli *cli, const char *format, ...) IMGTK_PRINTF(2, 3);
/* The same for a failed call; prefix (may be NULL) names the file. A signal that stopped the call is named instead. */
int cli_fail(const struct cli *cli, const char *prefix, const struct imgtk_error *err);
/* A message that is no error; it looks different where there are colours. */
void cli_tell(const struct cli *cli, const char *format, ...) IMGTK_PRINTF(2, 3);
/* The same, only with -v. */
void cli_note(const struct cli *cli, const char *format, ...) IMGTK_PRINTF(2, 3);
/* Whether `to` is a terminal that shows colours and NO_COLOR does not forbid them. */
bool cli_shows_colors(FILE *to);
/* The columns of the terminal that `to` is, or those that COLUMNS says; where there is neither, `otherwise`. */
size_t cli_terminal_width(FILE *to, size_t otherwise);
/* Text from an image or a file name, as messages have it; on stdout, or on a stream. */
void cli_print_text(const char *text);
void cli_put_text(FILE *to, const char *text);
/* Flushes stdout; what could not be written turns a success into a failure with a message. */
int cli_finish_output(const struct cli *cli, int exit_code);

/* "1.21 MiB" as qemu-img prints it. */
#define CLI_SIZE_TEXT 24
void cli_format_size(uint64_t bytes, char out[CLI_SIZE_TEXT]);
/* Decimal digits at `out`, not terminated; returns the end. At most 20. */
char *cli_put_u64(char *out, uint64_t value);
/* "0x1f", zero as "0" (as printf("%#x") has it), padded with spaces to `width`. At most 18 or width. */
char *cli_put_hex(char *out, uint64_t value, size_t width);

enum cli_output { CLI_OUTPUT_HUMAN, CLI_OUTPUT_JSON };
/* --output=human|json; NULL: human. Not 0: the mistake is printed. */
int cli_parse_output(const struct cli *cli, const char *text, enum cli_output *out);

/* A number of threads, 1 to 64; NULL: 0, for the default. Not 0: the mistake is printed. */
int cli_parse_workers(const struct cli *cli, const char *text, unsigned *out);

#endif
