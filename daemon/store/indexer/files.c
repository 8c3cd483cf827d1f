#include "daemon/store/indexer/files.h"

#include <errno.h>
#include <unistd.h>

#include "daemon/store/erofs/seal.h"
#include "proto/base/fault.h"

/* Headers are read and content is passed over, so reads are small; where files are small they are
 * not, and reads grow. */
#define READ_MIN (4 * KIB)
#define READ_MAX (64 * KIB)

struct growing {
    const struct index_files *files;
    uint64_t position, available;
    bool ended;
    size_t read_size;
    uint64_t counters[64]; /* as read from the pipe, the last one maybe in part */
    size_t counter_bytes;
    uint64_t written; /* of the index */
    struct seal *seal;
};

/* Waits until the archive has so many bytes, or has ended before. A negative errno. */
static int wait_for(struct growing *growing, uint64_t bytes)
{
    const size_t size = sizeof(growing->counters[0]);

    while (growing->available < bytes && !growing->ended) {
        char *buffer = (char *)growing->counters;
        size_t whole;
        ssize_t n = read(growing->files->counter_fd, buffer + growing->counter_bytes,
                         sizeof(growing->counters) - growing->counter_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        growing->ended = n == 0;
        growing->counter_bytes += (size_t)n;
        whole = growing->counter_bytes / size;
        if (whole == 0)
            continue;
        growing->available = MAX(growing->available, growing->counters[whole - 1]);
        growing->counter_bytes -= whole * size;
        memmove(buffer, buffer + whole * size, growing->counter_bytes);
    }
    return 0;
}

static ssize_t read_fd(int fd, void *buffer, size_t size, uint64_t offset)
{
    ssize_t n;

    do
        n = pread(fd, buffer, size, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t read_archive(void *arg, void *buffer, size_t size)
{
    struct growing *growing = arg;
    int r = wait_for(growing, growing->position + 1);
    uint64_t left = growing->available - growing->position;
    ssize_t n;

    if (r < 0 || growing->available <= growing->position)
        return r;
    size = MIN(MIN(size, growing->read_size), left);
    n = read_fd(growing->files->archive_fd, buffer, size, growing->position);
    if (n == 0)
        return -EIO; /* shorter than the daemon said */
    growing->position += n < 0 ? 0 : (uint64_t)n;
    growing->read_size = MIN(growing->read_size * 2, READ_MAX);
    return n;
}

static int64_t skip_archive(void *arg, int64_t size)
{
    struct growing *growing = arg;
    uint64_t target = growing->position + (uint64_t)size, begin = growing->position;
    int r = wait_for(growing, target);

    if (r < 0)
        return r;
    growing->read_size = READ_MIN;
    growing->position = MAX(MIN(target, growing->available), begin);
    return (int64_t)(growing->position - begin);
}

static ssize_t read_archive_at(void *arg, void *buffer, size_t size, uint64_t offset)
{
    const struct growing *growing = arg;

    return read_fd(growing->files->archive_fd, buffer, size, offset);
}

static bool write_fd(int fd, const void *data, size_t size, uint64_t offset, struct error *err)
{
    const char *bytes = data;

    while (size > 0) {
        ssize_t n = pwrite(fd, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "cannot write the index of the layer");
        bytes += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool write_index(void *arg, const void *data, size_t size, struct error *err)
{
    struct growing *growing = arg;

    fault_point("index.write");
    if (!write_fd(growing->files->index_fd, data, size, growing->written, err))
        return false;
    growing->written += size;
    seal_update(growing->seal, data, size);
    return true;
}

static bool write_sparse(void *arg, const void *data, size_t size, uint64_t offset,
                         struct error *err)
{
    const struct growing *growing = arg;

    return write_fd(growing->files->sparse_fd, data, size, offset, err);
}

/* Holes at the end are part of it. */
static bool finish_sparse(const struct growing *growing, uint64_t size, struct error *err)
{
    ssize_t n;

    if (size == 0)
        return true;
    if (ftruncate(growing->files->sparse_fd, (off_t)size) < 0)
        return error_set_errno(err, errno, "cannot write the sparse files of the layer");
    while ((n = seal_step(growing->seal, err)) > 0)
        ;
    return n == 0;
}

bool index_files(const struct index_files *files, struct layer_report *ret, struct error *err)
{
    CLEANUP(seal_cleanup) struct seal *seal = seal_new(-1, files->sparse_fd);
    struct growing growing = {.files = files, .read_size = READ_MIN, .seal = seal};
    const struct index_io io = {
        .archive = {.read = read_archive, .skip = skip_archive, .arg = &growing},
        .read_at = read_archive_at,
        .write_sparse = write_sparse,
        .write_index = write_index,
        .arg = &growing,
    };

    if (!index_layer(&io, ret, err) || !finish_sparse(&growing, ret->sparse_bytes, err))
        return false;
    ret->seal = seal_finish(seal);
    return true;
}
