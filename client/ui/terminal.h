/* What davit knows and says about terminals. Nothing here suspends. */
#pragma once

#include "proto/base/strbuf.h"

struct terminal_size {
    unsigned width, height; /* columns, rows; at least 1 */
};

/* Whether fd is a terminal that understands cursor movements (TERM is set and not "dumb"). */
bool terminal_is_smart(int fd);

/* Of the terminal on fd; where it does not say, COLUMNS and LINES, or 80 by 24. */
struct terminal_size terminal_size(int fd);

/* The width that tables on standard output have to fit: 0, any, where that is no terminal. */
size_t terminal_table_width(void);

/* Whether colours are wanted there: a smart terminal and no NO_COLOR (no-color.org). */
bool terminal_wants_color(int fd);

/* Columns that UTF-8 text takes: two for a wide character, none for a combining one. */
size_t terminal_columns(const char *text);

/* Text of at most so many columns, the last of them an ellipsis if it had more: Docker's. The
 * caller frees it. */
char *terminal_shortened(const char *text, size_t columns);

/* The sequences that are used; every terminal since the VT100's successors has them. */
#define TERMINAL_HIDE_CURSOR "\033[?25l"
#define TERMINAL_SHOW_CURSOR "\033[?25h"
#define TERMINAL_NO_WRAP "\033[?7l"
#define TERMINAL_WRAP "\033[?7h"
#define TERMINAL_ERASE_LINE "\033[K"  /* from the cursor to the end of its line */
#define TERMINAL_ERASE_BELOW "\033[J" /* from the cursor to the end of the screen */
#define TERMINAL_GREEN "\033[32m"
#define TERMINAL_YELLOW "\033[33m"
#define TERMINAL_PLAIN "\033[0m"
