#include "proto/base/error.h"

#include <errno.h>
#include <stdarg.h>

#include "proto/base/strbuf.h"

void error_done(struct error *err)
{
    free(err->reason);
    free(err->message);
    free(err->hint);
    *err = (struct error){0};
}

/* Messages quote what strangers sent, and end on terminals, in log lines and in protobuf strings:
 * they are one line of valid UTF-8. */
static char *format_text(const char *format, va_list args)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    struct strbuf printable = {0};

    strbuf_vaddf(&text, format, args);
    strbuf_add_printable(&printable, strbuf_text(&text));
    return strbuf_take(&printable);
}

bool error_set(struct error *err, enum error_code code, const char *reason, const char *format, ...)
{
    va_list args;
    struct error fresh = {.code = code, .reason = NULL};

    if (!err)
        return false;
    /* What err held may be among the arguments: copy and format first, free after. */
    fresh.reason = xstrdup(reason);
    va_start(args, format);
    fresh.message = format_text(format, args);
    va_end(args);
    return error_move(err, &fresh);
}

static enum error_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ECANCELED:
        return ERROR_CANCELLED;
    case ETIMEDOUT:
        return ERROR_DEADLINE_EXCEEDED;
    case ENOENT:
        return ERROR_NOT_FOUND;
    case EEXIST:
        return ERROR_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERROR_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return ERROR_RESOURCE_EXHAUSTED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return ERROR_UNAVAILABLE;
    case EINVAL:
        return ERROR_INVALID_ARGUMENT;
    default:
        return ERROR_INTERNAL;
    }
}

static const char *reason_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return "NO_SPACE";
    case EIO:
    case EUCLEAN: /* what a damaged file system gives, and the next */
    case EBADMSG:
        return "IO_ERROR";
    default:
        return NULL;
    }
}

bool error_hint_of_reason(struct error *err)
{
    if (error_is(err, "NO_SPACE"))
        error_hint(err, "free some space there, for example with 'davit rmi', and try again");
    else if (error_is(err, "IO_ERROR"))
        error_hint(err, "the disk or its file system fails: see the kernel's log, 'dmesg'");
    return false;
}

bool error_set_errno(struct error *err, int errnum, const char *format, ...)
{
    CLEANUP_FREE char *context = NULL;
    va_list args;

    if (!err)
        return false;
    errnum = errnum < 0 ? -errnum : errnum;
    va_start(args, format);
    context = format_text(format, args);
    va_end(args);
    /* Mostly a deadline of ours: strerror's "Connection timed out" would mislead. */
    error_set(err, code_of_errno(errnum), NULL, "%s: %s", context,
              errnum == ETIMEDOUT ? "timed out" : strerror(errnum));
    err->reason = xstrdup(reason_of_errno(errnum));
    return error_hint_of_reason(err);
}

bool error_prefix(struct error *err, const char *format, ...)
{
    CLEANUP_FREE char *context = NULL;
    va_list args;
    char *message;

    if (!err)
        return false;
    va_start(args, format);
    context = format_text(format, args);
    va_end(args);
    message = xasprintf("%s: %s", context, err->message ? err->message : "");
    free(err->message);
    err->message = message;
    return false;
}

bool error_hint(struct error *err, const char *format, ...)
{
    va_list args;
    char *hint;

    if (!err)
        return false;
    va_start(args, format);
    hint = format_text(format, args);
    va_end(args);
    free(err->hint);
    err->hint = hint;
    return false;
}

bool error_move(struct error *dst, struct error *src)
{
    struct error moved = *src;

    *src = (struct error){0};
    if (dst) {
        error_done(dst);
        *dst = moved;
    } else {
        error_done(&moved);
    }
    return false;
}

bool error_copy(struct error *dst, const struct error *src)
{
    struct error copy = {
        .code = src->code,
        .reason = xstrdup(src->reason),
        .message = xstrdup(src->message),
        .hint = xstrdup(src->hint),
        .retry_after_ms = src->retry_after_ms,
    };

    return error_move(dst, &copy);
}

const char *error_code_name(enum error_code code)
{
    static const char *const names[] = {
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    };

    return (size_t)code < ARRAY_SIZE(names) ? names[code] : "UNKNOWN";
}
