/* A growing byte string, always NUL-terminated. Life cycle: zero-initialise, use, strbuf_done. */
#pragma once

#include <stdarg.h>

#include "proto/base/util.h"

struct strbuf {
    char *data; /* NULL while empty and never grown */
    size_t length, capacity;
};

#define CLEANUP_STRBUF CLEANUP(strbuf_done)

void strbuf_done(struct strbuf *buf);
void strbuf_clear(struct strbuf *buf); /* length 0, memory kept */
void strbuf_reserve(struct strbuf *buf, size_t extra);

void strbuf_add(struct strbuf *buf, const void *data, size_t size);
void strbuf_add_str(struct strbuf *buf, const char *s);
void strbuf_add_char(struct strbuf *buf, char c);
void strbuf_addf(struct strbuf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
void strbuf_vaddf(struct strbuf *buf, const char *format, va_list args);

/* Adds text of strangers so that it is one line of valid UTF-8 that steers no terminal: control
 * characters (C0, DEL, C1) and those that turn the order of the text become JSON's escapes, bytes
 * that are not UTF-8 become U+FFFD. */
void strbuf_add_printable(struct strbuf *buf, const char *text);

/* The same as a JSON string, with the quotes. */
void strbuf_add_quoted(struct strbuf *buf, const char *text);

/* Removes the first size bytes. */
void strbuf_consume(struct strbuf *buf, size_t size);

/* The text so far, "" if empty; owned by buf. */
const char *strbuf_text(const struct strbuf *buf);

/* Moves the text out ("" if empty); the caller frees it; buf is empty afterwards. */
char *strbuf_take(struct strbuf *buf);
