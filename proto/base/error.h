/* The one error convention: a function that can fail takes `struct error *err` as its last
 * parameter and returns a bool, pointer or count. The callee describes what failed, on what, why;
 * callers add context on the way up with error_prefix(). Whoever can tell the user what to do sets
 * a hint. A function either logs an error or returns it, never both. */
#pragma once

#include "proto/base/util.h"

/* The numbers are gRPC's status codes, so that an error crosses the wire unchanged
 * (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
enum error_code {
    ERROR_NONE = 0,
    ERROR_CANCELLED = 1,
    ERROR_UNKNOWN = 2,
    ERROR_INVALID_ARGUMENT = 3,
    ERROR_DEADLINE_EXCEEDED = 4,
    ERROR_NOT_FOUND = 5,
    ERROR_ALREADY_EXISTS = 6,
    ERROR_PERMISSION_DENIED = 7,
    ERROR_RESOURCE_EXHAUSTED = 8,
    ERROR_FAILED_PRECONDITION = 9,
    ERROR_ABORTED = 10,
    ERROR_OUT_OF_RANGE = 11,
    ERROR_UNIMPLEMENTED = 12,
    ERROR_INTERNAL = 13,
    ERROR_UNAVAILABLE = 14,
    ERROR_DATA_LOSS = 15,
    ERROR_UNAUTHENTICATED = 16,
};

struct error {
    enum error_code code; /* ERROR_NONE while nothing has failed */
    char *reason;         /* stable upper-case word for programs, "IMAGE_NOT_FOUND"; NULL if none */
    char *message;        /* one printable line of UTF-8 for people; owned */
    char *hint;           /* the same, what the user can do about it; NULL if nothing is known */
    uint64_t retry_after_ms; /* how long the other side asked to be left alone; 0: it did not say */
};

#define CLEANUP_ERROR CLEANUP(error_done)

/* Frees the contents and leaves an empty error. */
void error_done(struct error *err);

/* Fills err, replacing what it held. reason may be NULL. err may be NULL: then nothing is kept.
 * Control characters and broken UTF-8 in the text are made harmless (strbuf_add_printable).
 * Always returns false, so that a failing function can `return error_set(...)`. */
bool error_set(struct error *err, enum error_code code, const char *reason, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* The same from an errno value (sign ignored): the code is chosen from it and ": strerror" is
 * appended. ECANCELED gives ERROR_CANCELLED, ETIMEDOUT gives ERROR_DEADLINE_EXCEEDED. A full disk
 * has the reason NO_SPACE, one that fails IO_ERROR, and a hint. */
bool error_set_errno(struct error *err, int errnum, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts "context: " before the message. Returns false. */
bool error_prefix(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Sets the hint, replacing an earlier one. Returns false. */
bool error_hint(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Sets the hint that error_set_errno() gives for err's reason, if it does for one. Returns false.
 */
bool error_hint_of_reason(struct error *err);

/* Moves the contents of src to dst (which is cleared first) and empties src. Returns false. */
bool error_move(struct error *dst, struct error *src);

/* Deep copy; dst is cleared first. Returns false. */
bool error_copy(struct error *dst, const struct error *src);

/* True if an error is held. */
static inline bool error_is_set(const struct error *err)
{
    return err->code != ERROR_NONE;
}

static inline bool error_is(const struct error *err, const char *reason)
{
    return err->reason && strcmp(err->reason, reason) == 0;
}

/* "NOT_FOUND" and so on, gRPC's names. Static. */
const char *error_code_name(enum error_code code);
