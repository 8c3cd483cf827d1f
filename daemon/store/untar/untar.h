/* The unpacker of layers: reads a tar archive from a stranger and writes its entries below one
 * directory, never anywhere else (SECURITY.md, rules 1 and 2). It runs in davit-untar, a process of
 * its own that has confined itself (confine.h); the daemon talks to it through report.h.
 *
 * Nouns: the *input*, where bytes come from; the *result*; an *opaque* directory, one that hides
 * what lower layers have in its place. Begin with untar(). */
#pragma once

#include <sys/types.h>

#include "proto/base/error.h"
#include "proto/base/strbuf.h"

/* Limits (SECURITY.md, "Limits"). */
#define UNTAR_PATH_MAX 4096
#define UNTAR_XATTRS_MAX (64 * KIB)
#define UNTAR_ENTRIES_MAX 2000000
#define UNTAR_CONTENT_MAX (16 * 1024 * GIB) /* sparse files claim more than they hold */
#define UNTAR_OPAQUE_MAX (4 * MIB)          /* all paths of opaque directories together */

struct untar_input {
    /* Up to size bytes; 0 at the end; a negative errno. */
    ssize_t (*read)(void *arg, void *buffer, size_t size);
    void *arg;
};

struct untar_result {
    uint64_t content_bytes; /* of regular files and symlinks, each inode once: as Docker counts */
    uint64_t entries;
    /* Paths of directories to be marked opaque, each with its NUL. The mark is a trusted.* xattr,
     * for which this process is not privileged enough: its parent sets it. */
    struct strbuf opaque;
};

void untar_result_done(struct untar_result *result);

/* Unpacks the archive below root_fd and reads the input to its end. Everything but tar, `..` that
 * leaves the root, links out of it, names that are too long: DATA_LOSS (INVALID_LAYER), naming the
 * entry; a full disk: RESOURCE_EXHAUSTED (NO_SPACE). What was written until then stays. Blocks;
 * wants umask 0. */
bool untar(int root_fd, const struct untar_input *input, struct untar_result *ret,
           struct error *err);
