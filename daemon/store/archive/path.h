/* Names as they stand in archives, without I/O, and errors that name an entry. */
#pragma once

#include "daemon/store/archive/limits.h"
#include "proto/base/error.h"

struct path {
    char text[LAYER_PATH_MAX]; /* relative, clean, no "." or ".."; "" is the root */
    size_t length;
    size_t parent_length; /* of the part before the last slash */
    char *base;           /* the last name, in text */
};

/* Makes a name from an archive a path below the root, as Docker does: absolute names are taken from
 * the root, ".." goes up in the text. One that would leave the root is an error. */
bool path_parse(const char *name, struct path *ret, struct error *err);

/* Text for messages: bytes that are no printable ASCII escaped, long names shortened. */
struct quoted {
    char text[256];
};
struct quoted path_quote(const char *name);

/* DATA_LOSS (INVALID_LAYER) for what an archive can bring about, else as
 * error_set_errno() does. Return false. */
bool entry_failed(const struct path *path, int errnum, const char *doing, struct error *err);
bool entry_invalid(const struct path *path, const char *why, struct error *err);
