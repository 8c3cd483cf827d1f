/* Tables as Docker prints them, that is, Go's text/tabwriter: columns at least 10 wide, 3 blanks
 * apart, the last one unpadded.
 * Use: table_row() for the heading and each row, then table_print(); or add_table() for text that
 * has tabs between its cells. */
#pragma once

#include "proto/base/strbuf.h"

struct table {
    size_t columns;
    struct strbuf text; /* rows as lines, cells with tabs between */
};

#define CLEANUP_TABLE CLEANUP(table_done)

void table_init(struct table *table, size_t columns);
void table_done(struct table *table);

/* Adds one row of table->columns texts, which are copied and made printable. */
void table_row(struct table *table, const char *const *cells);

void table_print(const struct table *table, struct strbuf *out);

/* How a table is made to fit a terminal: columns of free text give way first, the widest of them
 * before others, then short ones as times and sizes; what is long and no free text, as digests, is
 * never cut. What is cut ends with an ellipsis. */
struct table_fit {
    size_t width;                  /* 0: as wide as it is */
    const char *const *free_texts; /* headings of such columns, terminated by NULL; or NULL */
};

/* Appends lines with their cells one below the other. A column ends with a line that has none: what
 * comes after that has widths of its own. */
void add_table(struct strbuf *out, const char *text, size_t length, const struct table_fit *fit);
