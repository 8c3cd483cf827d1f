/* Small things every file needs: ownership macros, checked allocation, comparisons.
 * Start here when a local variable must release itself: CLEANUP(), TAKE(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h> /* MIN, MAX */
#include <unistd.h>

/* Calls fn(&variable) when the variable goes out of scope. That is a use, which clang overlooks. */
#define CLEANUP(fn) __attribute__((cleanup(fn), unused))

/* Moves ownership out of a pointer variable: yields the value and leaves NULL behind. */
#define TAKE(ptr)                                 \
    ({                                            \
        __typeof__(ptr) *take_ptr_ = &(ptr);      \
        __typeof__(ptr) take_value_ = *take_ptr_; \
        *take_ptr_ = NULL;                        \
        take_value_;                              \
    })

/* The same for a file descriptor: leaves -1 behind. */
#define TAKE_FD(fd)                  \
    ({                               \
        int *take_fd_ = &(fd);       \
        int take_value_ = *take_fd_; \
        *take_fd_ = -1;              \
        take_value_;                 \
    })

#define PRINTF_LIKE(format_index, first_arg) \
    __attribute__((format(printf, format_index, first_arg)))
#define UNUSED __attribute__((unused))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define KIB 1024ULL
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

/* Prints the message to stderr and aborts. For broken invariants, never for bad input. */
_Noreturn void die(const char *format, ...) PRINTF_LIKE(1, 2);

/* Aborts with its place in the source when the condition is false, in every build type. */
#define CHECK(condition) \
    ((condition) ? (void)0 : die("%s:%d: check failed: %s", __FILE__, __LINE__, #condition))

/* Allocation that aborts on failure. Sizes that a peer chooses are checked against a limit first.
 */
void *xmalloc(size_t size) __attribute__((malloc));
void *xcalloc(size_t count, size_t size) __attribute__((malloc));
void *xrealloc(void *ptr, size_t size);
void *xmemdup(const void *data, size_t size);
char *xstrdup(const char *s);              /* NULL gives NULL */
char *xstrndup(const char *s, size_t max); /* copies at most max bytes, always terminated */
char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);

/* For CLEANUP: release what the variable holds. */
static inline void free_ptr(void *ptr_to_ptr)
{
    free(*(void **)ptr_to_ptr);
}

static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

#define CLEANUP_FREE CLEANUP(free_ptr)

/* Frees a text that nobody shall find in memory afterwards. Takes NULL. */
void free_secret(char *secret);
static inline void secret_cleanup(char **secret)
{
    free_secret(*secret);
}
#define CLEANUP_SECRET CLEANUP(secret_cleanup)
#define CLEANUP_CLOSE CLEANUP(close_fd)

static inline bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static inline bool str_empty(const char *s)
{
    return !s || !*s;
}

static inline bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix);

/* Frees a NULL-terminated array of strings and its members; returns NULL. */
char **strv_free(char **strv);
char **strv_dup(char *const *strv); /* NULL gives NULL */
size_t strv_count(char *const *strv);
void strv_add(char ***strv, const char *text); /* appends a copy; *strv may be NULL */
static inline void strv_cleanup(char ***strv)
{
    *strv = strv_free(*strv);
}

/* Monotonic clock in milliseconds, and wall clock in nanoseconds since 1970. */
uint64_t now_ms(void);
int64_t wall_clock_ns(void);
