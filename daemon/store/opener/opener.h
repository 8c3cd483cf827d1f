/* The opener of archives of images: reads a tar archive from a stranger, plain or compressed, and
 * passes its members on as frames (archive/frame.h), as they come. It runs in davit-archive, a
 * process of its own that has confined itself; no file is ever opened by it. No I/O of its own.
 *
 * Nouns: the *input*, the archive as it comes; a *member*, a file or link in it; *output*, frames.
 * Begin with open_archive(). */
#pragma once

#include <sys/types.h>

#include "daemon/store/archive/frame.h"

struct opener_io {
    /* Up to size bytes; 0 at the end; a negative errno. */
    ssize_t (*read)(void *arg, void *buffer, size_t size);
    /* Writes all of a frame: its header, then data. 0 or a negative errno. */
    int (*write)(void *arg, const void *header, size_t header_size, const void *data, size_t size);
    void *arg;
};

/* What may come out of an archive: the larger of this many bytes and so many times what went in. */
#define ARCHIVE_INFLATED_MIN (1 * GIB)
#define ARCHIVE_INFLATED_RATIO 200

/* What may follow the end of an archive, and is read and forgotten. */
#define ARCHIVE_DRAINED_MAX (16 * MIB)

/* Reads the mode and the archive, and writes frames until the last, which is END or FAILED; the
 * latter with DATA_LOSS (INVALID_ARCHIVE), naming the member. Reads the input to its end, unless
 * the archive is refused or more follows it than that. Blocks as the callbacks do; false if the
 * last frame is not END or nobody takes frames any more. */
bool open_archive(const struct opener_io *io);
