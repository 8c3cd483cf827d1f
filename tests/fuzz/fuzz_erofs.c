/* Indexing strangers' archives, in memory: whatever is accepted gives an image that erofs_check()
 * finds nothing wrong with, and content that lies within the archive or beside it. The first byte
 * chooses how the archive is read. */
#include <stdio.h>

#include "daemon/store/indexer/indexer.h"
#include "tests/fuzz/tar_input.h"
#include "tests/unit/daemon/store/erofs_check.h"

struct fuzzed {
    const uint8_t *data;
    size_t size, position, step;
    uint64_t sparse_end; /* of what was written */
    struct strbuf index;
};

static ssize_t read_archive(void *arg, void *buffer, size_t size)
{
    struct fuzzed *fuzzed = arg;
    size_t n = MIN(MIN(size, fuzzed->step), fuzzed->size - fuzzed->position);

    if (n)
        memcpy(buffer, fuzzed->data + fuzzed->position, n);
    fuzzed->position += n;
    return (ssize_t)n;
}

static int64_t skip_archive(void *arg, int64_t size)
{
    struct fuzzed *fuzzed = arg;
    size_t n = (size_t)MIN((uint64_t)size, fuzzed->size - fuzzed->position);

    CHECK(size > 0);
    fuzzed->position += n;
    return (int64_t)n;
}

static ssize_t read_at(void *arg, void *buffer, size_t size, uint64_t offset)
{
    const struct fuzzed *fuzzed = arg;

    CHECK(offset <= fuzzed->size && size <= fuzzed->size - offset);
    memcpy(buffer, fuzzed->data + offset, size);
    return (ssize_t)size;
}

static bool write_sparse(void *arg, const void *data UNUSED, size_t size, uint64_t offset,
                         struct error *err UNUSED)
{
    struct fuzzed *fuzzed = arg;

    fuzzed->sparse_end = MAX(fuzzed->sparse_end, offset + size);
    return true;
}

static bool write_index(void *arg, const void *data, size_t size, struct error *err UNUSED)
{
    struct fuzzed *fuzzed = arg;

    strbuf_add(&fuzzed->index, data, size);
    return true;
}

static void index_archive(struct fuzzed *fuzzed, bool with_skip)
{
    CLEANUP(layer_report_done) struct layer_report report = {0};
    CLEANUP_ERROR struct error err = {0};
    const struct index_io io = {
        .archive = {.read = read_archive, .skip = with_skip ? skip_archive : NULL, .arg = fuzzed},
        .read_at = read_at,
        .write_sparse = write_sparse,
        .write_index = write_index,
        .arg = fuzzed,
    };

    if (!index_layer(&io, &report, &err)) {
        CHECK(error_is_set(&err) && err.message);
        return;
    }
    CHECK(fuzzed->position == fuzzed->size);
    CHECK(report.index_bytes == fuzzed->index.length);
    CHECK(fuzzed->sparse_end <= report.sparse_bytes && report.sparse_bytes <= INDEX_SPARSE_MAX);
    CHECK(report.entries <= LAYER_ENTRIES_MAX && report.content_bytes <= LAYER_CONTENT_MAX);
    CHECK(report.opaque.length == 0);
    erofs_check((const uint8_t *)fuzzed->index.data, fuzzed->index.length, fuzzed->size,
                report.sparse_bytes, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {512, 4096, 1000, 65536};
    CLEANUP_FREE uint8_t *archive = NULL;
    CLEANUP_STRBUF struct strbuf first = {0};

    if (size < 1)
        return 0;
    archive = xmemdup(data + 1, size - 1);
    mend_checksums(archive, size - 1);
    /* However it is read, the index is the same. */
    for (int turn = 0; turn < 2; turn++) {
        struct fuzzed fuzzed = {
            .data = archive,
            .size = size - 1,
            .step = steps[(data[0] + turn) % ARRAY_SIZE(steps)],
        };
        index_archive(&fuzzed, turn == 0);
        if (turn == 1) {
            CHECK(fuzzed.index.length == first.length);
            CHECK(first.length == 0 || memcmp(fuzzed.index.data, first.data, first.length) == 0);
        } else
            strbuf_add(&first, fuzzed.index.data, fuzzed.index.length);
        strbuf_done(&fuzzed.index);
    }
    return 0;
}
