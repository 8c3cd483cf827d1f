/* Parts of progress lines. All functions append. */
#pragma once

#include "client/ui/terminal.h"

#define BAR_MAX 50 /* between the brackets */
#define BAR_MIN 10 /* with them: narrower ones say nothing */

/* "[=====>     ]", width columns in all. */
void add_bar(struct strbuf *out, uint64_t done, uint64_t total, size_t width);

/* A part of a line, two blanks apart from what is before it, if it fits. */
void add_part(struct strbuf *line, const struct strbuf *part, size_t width);

/* One live line, drawn over itself: "Saving  [==>   ]  12MB/1.2GB  300MB/s  ETA 4s". */
struct bar_line {
    const char *what;
    uint64_t done, total;      /* bytes; total 0: no bar */
    const char *note;          /* "2 problems"; or NULL */
    uint64_t bytes_per_second; /* 0: not shown */
    int64_t eta_ms;            /* negative: not shown */
};
void bar_line_draw(const struct bar_line *line, struct terminal_size size, struct strbuf *out);
void bar_line_leave(struct strbuf *out); /* erases it, and shows the cursor again */
