/* Makes an EROFS image of a tree: metadata only, the content of files being on other devices. The
 * same tree gives the same bytes. */
#pragma once

#include "daemon/store/erofs/tree.h"
#include "proto/base/error.h"

#define EROFS_SOURCES                                                          \
    2 /* devices that content can be on: 1, the archive, and 2, the sparse one \
       */

/* Takes the image, front to back. */
struct erofs_sink {
    bool (*write)(void *arg, const void *data, size_t size, struct error *err);
    void *arg;
};

/* Writes the image; its tree is of no use afterwards. source_bytes says how large the devices are
 * that have the content; an empty second one is left out. DATA_LOSS (INVALID_LAYER) if a device
 * has more blocks than there are numbers for (2 TiB), or an error of the sink. */
bool erofs_write(struct erofs_tree *tree, const uint64_t source_bytes[EROFS_SOURCES],
                 const struct erofs_sink *sink, uint64_t *ret_bytes, struct error *err);
