/* The indexer's input and output as files: the archive while it grows, the index, sparse content.
 */
#pragma once

#include "daemon/store/indexer/indexer.h"

struct index_files {
    int counter_fd; /* pipe: numbers (8 bytes) of bytes that the archive has now; its end is the end
                       of the archive */
    int archive_fd, index_fd, sparse_fd;
};

/* Indexes the archive in a file, beginning with what is there, and waits for what is not. The
 * report is complete. Blocks. */
bool index_files(const struct index_files *files, struct layer_report *ret, struct error *err);
