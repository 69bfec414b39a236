/* Text that an image or a user named, made safe for where it is put. Bytes that are no UTF-8, and characters that
   control or reorder what stands beside them, become U+FFFD. */
#ifndef IMGTK_CLI_TEXT_H
#define IMGTK_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The next character of *text, which moves behind it; 0 at the end. */
uint32_t text_next(const char **text);
/*
 * Moves *text, which is not at its end, behind the next character; whether that may be printed as it is. A byte that is
 * no UTF-8 may, unless a terminal of 8 bits takes it for a control character.
 */
bool text_pass(const char **text);
/* At most `limit` characters, the last one an ellipsis where there were more. Returns how many were put. */
size_t text_put(FILE *to, const char *text, size_t limit);
/* The same, escaped for content and attributes of XML and HTML. */
size_t text_put_xml(FILE *to, const char *text, size_t limit);
/* All of it, as a string of JSON that may stand in a script element. */
void text_put_json(FILE *to, const char *text);

#endif
