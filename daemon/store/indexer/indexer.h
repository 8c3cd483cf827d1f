/* The indexer of layers: reads the headers of a tar archive from a stranger and makes an EROFS
 * index of it, which points into the archive for the content of files. It runs in davit-index, a
 * process of its own that has confined itself (confine.h); the daemon talks to it through
 * archive/report.h. No I/O of its own.
 *
 * Nouns: the *archive*; the *index*; *sparse content*: of files that have holes in the archive, or
 * otherwise do not lie there as they are to be read. Begin with index_layer(). */
#pragma once

#include "daemon/store/archive/layer_reader.h"
#include "daemon/store/archive/report.h"
#include "daemon/store/erofs/image.h"

#define INDEX_SPARSE_MAX (1024 * GIB) /* sparse content, holes included */
#define INDEX_MEMORY_MAX (384 * MIB)  /* names and so on; 1 million files take some 130 MiB */

struct index_io {
    struct layer_input archive; /* its read is sequential, with skip */
    /* Bytes of the archive at an offset that was skipped: how many, or a negative errno. */
    ssize_t (*read_at)(void *arg, void *buffer, size_t size, uint64_t offset);
    bool (*write_sparse)(void *arg, const void *data, size_t size, uint64_t offset,
                         struct error *err);
    bool (*write_index)(void *arg, const void *data, size_t size, struct error *err);
    void *arg; /* of the last three */
};

/* Reads the archive to its end and writes its index, the same for the same archive. Errors are
 * those of untar(), whose tree the index equals; and DATA_LOSS (INVALID_LAYER) beyond the limits
 * above. The report has no seal yet. Blocks as the callbacks do. */
bool index_layer(const struct index_io *io, struct layer_report *ret, struct error *err);
