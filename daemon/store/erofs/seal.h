/* The seal of a layer that the hash of its archive does not cover: SHA-256 over the index, and over
 * each block of 4 KiB of the sparse content that is not all zero, with its number, so that it does
 * not matter how the holes are stored. */
#pragma once

#include "proto/base/digest.h"

struct seal;

/* Over the files behind two descriptors, which stay the caller's; sparse_fd is -1 if there is no
 * sparse content. index_fd is -1 if what it holds comes through seal_update() instead. */
struct seal *seal_new(int index_fd, int sparse_fd);
struct seal *seal_free(struct seal *seal); /* takes NULL; returns NULL */
static inline void seal_cleanup(struct seal **seal)
{
    *seal = seal_free(*seal);
}

/* The next bytes of the index, before any step. */
void seal_update(struct seal *seal, const void *data, size_t size);

/* Reads about a MiB: how much it was, 0 once all is read, or -1 with err. Blocks. */
ssize_t seal_step(struct seal *seal, struct error *err);

/* Once, after the last step. */
struct digest seal_finish(struct seal *seal);
