/* What is kept of layers as plain files, for those who send them elsewhere. */
#pragma once

#include "daemon/store/store.h"

enum layer_part {
    LAYER_TAR,  /* uncompressed: its digest is the diff_id */
    LAYER_KEPT, /* the compressed blob, as it was fetched */
};

struct layer_file {
    int fd; /* to read from, also while the layer is removed or replaced */
    uint64_t size_bytes;
    struct digest digest; /* as it should be; whoever reads it sees what it is */
};
void layer_file_close(struct layer_file *file);
#define CLEANUP_LAYER_FILE CLEANUP(layer_file_close)

/* Opens it, in the thread pool. FAILED_PRECONDITION (NO_LAYER_FILE) where there is none: the driver
 * unpacks layers, or the blob was not kept; NOT_FOUND (LAYER_NOT_FOUND). */
bool await_layer_file_open(struct store *store, const struct digest *diff_id, enum layer_part part,
                           struct layer_file *ret, struct error *err);

/* Says how a layer was found to be damaged: DATA_LOSS (LAYER_DAMAGED), with what to do. Returns
 * false. */
bool layer_damaged(const struct digest *diff_id, const char *how, struct error *err);
