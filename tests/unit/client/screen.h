/* A small terminal: what bytes look like once written to it. Knows exactly the sequences that
 * client/ui/terminal.h names; anything else fails the test. */
#pragma once

#include "tests/unit/test.h"

#include "proto/base/strbuf.h"

#define SCREEN_COLUMNS 120
#define SCREEN_ROWS 30

struct screen {
    unsigned width, height, row, column;
    char cells[SCREEN_ROWS][SCREEN_COLUMNS];
    struct strbuf scrolled; /* lines that left at the top */
    bool hidden, no_wrap, green, overflowed;
};

static inline void screen_init(struct screen *screen, unsigned width, unsigned height)
{
    *screen = (struct screen){.width = width, .height = height};
    memset(screen->cells, ' ', sizeof(screen->cells));
}

static inline void screen_add_line(const struct screen *screen, unsigned row, struct strbuf *out)
{
    unsigned length = screen->width;
    while (length > 0 && screen->cells[row][length - 1] == ' ')
        length--;
    strbuf_add(out, screen->cells[row], length);
    strbuf_add_char(out, '\n');
}

static inline void screen_newline(struct screen *screen)
{
    if (screen->row + 1 < screen->height) {
        screen->row++;
        return;
    }
    screen_add_line(screen, 0, &screen->scrolled);
    memmove(screen->cells[0], screen->cells[1], sizeof(screen->cells[0]) * (screen->height - 1));
    memset(screen->cells[screen->height - 1], ' ', sizeof(screen->cells[0]));
}

static inline void screen_put(struct screen *screen, char c)
{
    if (screen->column >= screen->width) {
        screen->overflowed = true;
        screen->column = screen->no_wrap ? screen->width - 1 : 0;
        if (!screen->no_wrap)
            screen_newline(screen);
    }
    screen->cells[screen->row][screen->column++] = c;
}

static inline void screen_erase_line(struct screen *screen)
{
    const unsigned from = MIN(screen->column, screen->width - 1); /* as terminals do */
    memset(screen->cells[screen->row] + from, ' ', SCREEN_COLUMNS - from);
}

static inline const char *screen_escape(struct screen *screen, const char *s)
{
    unsigned number = 0;
    char final = 0;
    int length = 0;
    if (str_starts(s, "[?25l") || str_starts(s, "[?25h")) {
        screen->hidden = s[4] == 'l';
        return s + 5;
    }
    if (str_starts(s, "[?7l") || str_starts(s, "[?7h")) {
        screen->no_wrap = s[3] == 'l';
        return s + 4;
    }
    if (str_starts(s, "[K")) {
        screen_erase_line(screen);
        return s + 2;
    }
    if (str_starts(s, "[J")) {
        screen_erase_line(screen);
        for (unsigned row = screen->row + 1; row < screen->height; row++)
            memset(screen->cells[row], ' ', SCREEN_COLUMNS);
        return s + 2;
    }
    if (sscanf(s, "[%u%c%n", &number, &final, &length) == 2 && final == 'A') {
        screen->row -= MIN(number, screen->row);
        return s + length;
    }
    if (sscanf(s, "[%u%c%n", &number, &final, &length) == 2 && final == 'm') {
        screen->green = number == 32;
        return s + length;
    }
    fail_msg("unknown sequence ESC %.10s", s);
    return s;
}

static inline void screen_write(struct screen *screen, const struct strbuf *bytes)
{
    for (const char *s = strbuf_text(bytes); *s;) {
        if (*s == '\r') {
            screen->column = 0;
            s++;
        } else if (*s == '\n') {
            screen_newline(screen);
            s++;
        } else if (*s == '\033') {
            s = screen_escape(screen, s + 1);
        } else {
            screen_put(screen, *s++);
        }
    }
}

/* A reader's view: everything that scrolled away and what is visible, without trailing blanks. */
static inline char *screen_text(const struct screen *screen)
{
    struct strbuf text = {0};
    strbuf_add(&text, screen->scrolled.data, screen->scrolled.length);
    for (unsigned row = 0; row < screen->height; row++)
        screen_add_line(screen, row, &text);
    while (text.length > 1 && text.data[text.length - 1] == '\n' &&
           text.data[text.length - 2] == '\n')
        text.data[--text.length] = '\0';
    return strbuf_take(&text);
}
