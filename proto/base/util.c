#include "proto/base/util.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

_Noreturn void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("fatal: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void *xmalloc(size_t size)
{
    void *ptr = malloc(size ? size : 1);

    if (!ptr)
        die("out of memory allocating %zu bytes", size);
    return ptr;
}

void *xcalloc(size_t count, size_t size)
{
    void *ptr = calloc(count ? count : 1, size ? size : 1);

    if (!ptr)
        die("out of memory allocating %zu items of %zu bytes", count, size);
    return ptr;
}

void *xrealloc(void *ptr, size_t size)
{
    void *grown = realloc(ptr, size ? size : 1);

    if (!grown)
        die("out of memory growing to %zu bytes", size);
    return grown;
}

void *xmemdup(const void *data, size_t size)
{
    void *copy = xmalloc(size);

    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *xstrdup(const char *s)
{
    return s ? xmemdup(s, strlen(s) + 1) : NULL;
}

char *xstrndup(const char *s, size_t max)
{
    size_t length = strnlen(s, max);
    char *copy = xmalloc(length + 1);

    memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}

char *xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int length;

    va_start(args, format);
    length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0)
        die("out of memory formatting \"%s\"", format);
    return text;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t length = strlen(s), suffix_length = strlen(suffix);

    return length >= suffix_length && strcmp(s + length - suffix_length, suffix) == 0;
}

void free_secret(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

char **strv_free(char **strv)
{
    for (char **s = strv; s && *s; s++)
        free(*s);
    free(strv);
    return NULL;
}

size_t strv_count(char *const *strv)
{
    size_t count = 0;

    while (strv && strv[count])
        count++;
    return count;
}

void strv_add(char ***strv, const char *text)
{
    size_t count = strv_count(*strv);

    *strv = xrealloc(*strv, (count + 2) * sizeof(char *));
    (*strv)[count] = xstrdup(text);
    (*strv)[count + 1] = NULL;
}

char **strv_dup(char *const *strv)
{
    size_t count = strv_count(strv);
    char **copy;

    if (!strv)
        return NULL;
    copy = xcalloc(count + 1, sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        copy[i] = xstrdup(strv[i]);
    return copy;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t now_ms(void)
{
    return (uint64_t)clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t wall_clock_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
