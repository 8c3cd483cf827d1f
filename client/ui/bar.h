/* Parts of progress lines. All functions append. */
#pragma once

#include "proto/base/strbuf.h"

#define BAR_MAX 50 /* between the brackets */
#define BAR_MIN 10 /* with them: narrower ones say nothing */

/* "[=====>     ]", width columns in all. */
void add_bar(struct strbuf *out, uint64_t done, uint64_t total, size_t width);

/* A part of a line, two blanks apart from what is before it, if it fits. */
void add_part(struct strbuf *line, const struct strbuf *part, size_t width);
