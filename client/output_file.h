/* A file that is there once all of it was written, and until then is what it was before: what is
 * written lies beside it under another name. Docker's rules and words for what can be written to.
 */
#pragma once

#include "proto/base/error.h"

struct output_file {
    const char *path; /* the caller's */
    char *temporary;  /* while it lies there */
    int fd;
    uint64_t size_bytes, flushed_bytes;
};

/* Whether the path is that of a regular file or of none, in a directory that is there. Blocks. */
bool output_file_check(const char *path, struct error *err);

/* Mode 0600. Suspends, as the others do. */
bool await_output_file_open(const char *path, struct output_file *ret, struct error *err);
bool await_output_file_write(struct output_file *file, const void *data, size_t size,
                             struct error *err);

/* All was written: durable, then in its place. */
bool await_output_file_commit(struct output_file *file, struct error *err);

/* Removes what was not committed. Takes one that is all zero but fd, which is -1. */
void output_file_done(struct output_file *file);
