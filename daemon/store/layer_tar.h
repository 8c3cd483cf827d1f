/* A layer as the uncompressed tar that its diff_id names, read from the beginning to the end, for
 * those who give it out. It is what the driver keeps, or else comes out of the compressed blob
 * that was kept. Whoever reads it holds a lease on the layer. */
#pragma once

#include <sys/types.h>

#include "daemon/store/layer_file.h"

struct layer_tar;

/* NULL with NOT_FOUND (LAYER_NOT_FOUND); DATA_LOSS (LAYER_DAMAGED, BLOB_DAMAGED) if that is known
 * already; FAILED_PRECONDITION (NO_LAYER_FILE) where neither is kept. */
struct layer_tar *await_layer_tar_open(struct store *store, const struct digest *diff_id,
                                       struct error *err);

/* The same of a file that is open, which it takes over: the tar itself, or the blob. */
struct layer_tar *layer_tar_of_file(const struct digest *diff_id, uint64_t tar_bytes,
                                    struct layer_file *file, bool compressed);

/* Takes NULL; returns NULL. Does not suspend. */
struct layer_tar *layer_tar_free(struct layer_tar *tar);
static inline void layer_tar_cleanup(struct layer_tar **tar)
{
    *tar = layer_tar_free(*tar);
}

uint64_t layer_tar_size(const struct layer_tar *tar); /* of all of it, exact */

/* Begins anew. */
void layer_tar_rewind(struct layer_tar *tar);

/* The next `size` bytes; fewer at the end only, then 0. The last ones are given once all of them
 * were seen to have the layer's digest. -1 with err otherwise: DATA_LOSS (LAYER_DAMAGED,
 * BLOB_DAMAGED). Reads, inflates and hashes: in the thread pool, the second for those who are there
 * already. */
ssize_t await_layer_tar_read(struct layer_tar *tar, void *buffer, size_t size, struct error *err);
ssize_t layer_tar_read_blocking(struct layer_tar *tar, void *buffer, size_t size,
                                struct error *err);
