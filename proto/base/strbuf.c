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
