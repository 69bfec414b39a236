/* The files page.css and page.js, which the build puts into the program. */
#ifndef IMGTK_CLI_PAGE_H
#define IMGTK_CLI_PAGE_H

#include <stddef.h>

extern const unsigned char page_css[], page_js[];
extern const size_t page_css_size, page_js_size;

#endif
