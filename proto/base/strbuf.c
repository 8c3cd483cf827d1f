#include "proto/base/strbuf.h"

#include <stdio.h>

void strbuf_done(struct strbuf *buf)
{
    free(buf->data);
    *buf = (struct strbuf){0};
}

void strbuf_clear(struct strbuf *buf)
{
    buf->length = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

void strbuf_reserve(struct strbuf *buf, size_t extra)
{
    size_t needed = buf->length + extra + 1;

    if (needed <= buf->capacity)
        return;
    buf->capacity = MAX(needed, buf->capacity + buf->capacity / 2);
    buf->data = xrealloc(buf->data, buf->capacity);
    buf->data[buf->length] = '\0';
}

void strbuf_add(struct strbuf *buf, const void *data, size_t size)
{
    strbuf_reserve(buf, size);
    if (size)
        memcpy(buf->data + buf->length, data, size);
    buf->length += size;
    buf->data[buf->length] = '\0';
}

void strbuf_add_str(struct strbuf *buf, const char *s)
{
    strbuf_add(buf, s, strlen(s));
}

void strbuf_add_char(struct strbuf *buf, char c)
{
    strbuf_add(buf, &c, 1);
}

void strbuf_vaddf(struct strbuf *buf, const char *format, va_list args)
{
    char *text = NULL;
    int length = vasprintf(&text, format, args);

    if (length < 0)
        die("out of memory formatting \"%s\"", format);
    strbuf_add(buf, text, (size_t)length);
    free(text);
}

void strbuf_addf(struct strbuf *buf, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    strbuf_vaddf(buf, format, args);
    va_end(args);
}

/* Length of the well-formed UTF-8 sequence at text, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *text)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (text[0] < 0x80)
        return 1;
    if (text[0] < 0xc2 || text[0] > 0xf4)
        return 0;
    length = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    if (text[0] == 0xe0)
        low = 0xa0; /* overlong */
    else if (text[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (text[0] == 0xf0)
        low = 0x90;
    else if (text[0] == 0xf4)
        high = 0x8f; /* above U+10FFFF */
    for (size_t i = 1; i < length; i++) {
        if (text[i] < low || text[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

static void add_control(struct strbuf *buf, unsigned int character)
{
    switch (character) {
    case '\n':
        strbuf_add_str(buf, "\\n");
        return;
    case '\r':
        strbuf_add_str(buf, "\\r");
        return;
    case '\t':
        strbuf_add_str(buf, "\\t");
        return;
    default:
        strbuf_addf(buf, "\\u%04x", character);
        return;
    }
}

/* Separators of lines, and what turns the order of the text around it (U+2028 to U+202E, U+2066 to
 * U+2069): nothing of it is seen, and what is seen is not what is there. 0: it is none of these. */
static unsigned int invisible(const unsigned char *c)
{
    if (c[0] != 0xe2)
        return 0;
    if (c[1] == 0x80 && c[2] >= 0xa8 && c[2] <= 0xae)
        return 0x2000U | (c[2] & 0x3fU);
    return c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9 ? 0x2040U | (c[2] & 0x3fU) : 0;
}

static void add_escaped(struct strbuf *buf, const char *text, bool quoted)
{
    const unsigned char *c = (const unsigned char *)text;

    while (*c) {
        size_t length = utf8_length(c);
        if (length == 0) {
            strbuf_add_str(buf, "\xef\xbf\xbd");
            c++;
            continue;
        }
        if (*c < 0x20 || *c == 0x7f)
            add_control(buf, *c);
        else if (c[0] == 0xc2 && c[1] < 0xa0)
            add_control(buf, c[1]);
        else if (invisible(c))
            add_control(buf, invisible(c));
        else if (quoted && (*c == '"' || *c == '\\'))
            strbuf_addf(buf, "\\%c", *c);
        else
            strbuf_add(buf, c, length);
        c += length;
    }
}

void strbuf_add_printable(struct strbuf *buf, const char *text)
{
    add_escaped(buf, text, false);
}

void strbuf_add_quoted(struct strbuf *buf, const char *text)
{
    strbuf_add_char(buf, '"');
    add_escaped(buf, text, true);
    strbuf_add_char(buf, '"');
}

void strbuf_consume(struct strbuf *buf, size_t size)
{
    CHECK(size <= buf->length);
    if (size == 0)
        return;
    memmove(buf->data, buf->data + size, buf->length - size + 1);
    buf->length -= size;
}

const char *strbuf_text(const struct strbuf *buf)
{
    return buf->data ? buf->data : "";
}

char *strbuf_take(struct strbuf *buf)
{
    char *text;

    strbuf_reserve(buf, 0);
    text = buf->data;
    *buf = (struct strbuf){0};
    return text;
}
