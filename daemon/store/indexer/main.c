/* davit-index: makes the EROFS index of one layer for the daemon, confined. Not for people. Its
 * descriptors:
 *   0  a pipe: how many bytes the archive has now, as uint64_t, until it is complete
 *   1  takes the report (archive/report.h)
 *   3  the archive, which grows meanwhile
 *   4  the index, an empty file
 *   5  an empty file for sparse content; stays empty if the report says so */
#include "daemon/store/archive/confine.h"
#include "daemon/store/indexer/files.h"

#define FIRST_FREE_FD 6
#define MEMORY_MAX (512 * MIB) /* address space; the libraries alone map some 60 MiB */

static bool run(struct layer_report *ret, struct error *err)
{
    const struct index_files files = {
        .counter_fd = STDIN_FILENO,
        .archive_fd = 3,
        .index_fd = 4,
        .sparse_fd = 5,
    };

    hasher_free(hasher_new()); /* so that OpenSSL has read what it wants to */
    return confine_to_open_files(FIRST_FREE_FD, MEMORY_MAX, err) && index_files(&files, ret, err);
}

int main(int argc, char **argv UNUSED)
{
    confined_main("davit-index", argc, run);
}
