/* A table as Docker prints it: columns at least 10 wide, 3 blanks apart, the last one unpadded.
 * Use: table_row() for the heading and each row, then table_print(). */
#pragma once

#include "proto/base/strbuf.h"

struct table {
    size_t columns;
    char **cells; /* row by row */
    size_t count;
};

#define CLEANUP_TABLE CLEANUP(table_done)

void table_init(struct table *table, size_t columns);
void table_done(struct table *table);

/* Adds one row of table->columns texts, which are copied and made printable. */
void table_row(struct table *table, const char *const *cells);

void table_print(const struct table *table, struct strbuf *out);
