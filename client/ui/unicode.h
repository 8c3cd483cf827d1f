/* Characters of UTF-8 text: where one ends, what kind it is, how wide a terminal shows it. Whatever
 * the locale, by libc's own tables (C.UTF-8). Nothing here suspends. */
#pragma once

#include "proto/base/strbuf.h"

#define UNICODE_REPLACEMENT 0xfffd

/* Reads the first of size bytes, size > 0. Returns its length; what is no UTF-8 is one byte long
 * and U+FFFD. */
size_t unicode_read(const char *text, size_t size, uint32_t *ret);

/* Appends one character. */
void unicode_add(struct strbuf *out, uint32_t character);

bool unicode_is_letter(uint32_t character); /* or a digit */
bool unicode_is_printable(uint32_t character);
uint32_t unicode_upper(uint32_t character);
uint32_t unicode_lower(uint32_t character);

/* Columns on a terminal: 0 for combining marks, 2 for wide ones (CJK, emoji), else 1. */
unsigned unicode_width(uint32_t character);
