#include "daemon/store/erofs/seal.h"

#include <endian.h>
#include <errno.h>
#include <unistd.h>

#define STEP_BYTES (1 * MIB)
#define SEAL_BLOCK (4 * KIB)

struct seal {
    int index_fd, sparse_fd; /* -1 once read */
    off_t offset;            /* in the file that is being read */
    struct hasher *hasher;
    uint8_t *buffer;
};

struct seal *seal_new(int index_fd, int sparse_fd)
{
    struct seal *seal = xcalloc(1, sizeof(*seal));

    seal->index_fd = index_fd;
    seal->sparse_fd = sparse_fd;
    seal->hasher = hasher_new();
    seal->buffer = xmalloc(STEP_BYTES);
    return seal;
}

struct seal *seal_free(struct seal *seal)
{
    if (!seal)
        return NULL;
    hasher_free(seal->hasher);
    free(seal->buffer);
    free(seal);
    return NULL;
}

void seal_update(struct seal *seal, const void *data, size_t size)
{
    hasher_update(seal->hasher, data, size);
}

/* A full buffer, or less at the end of the file. */
static ssize_t read_step(struct seal *seal, int fd, struct error *err)
{
    size_t done = 0;

    while (done < STEP_BYTES) {
        ssize_t n = pread(fd, seal->buffer + done, STEP_BYTES - done, seal->offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            error_set_errno(err, errno, "cannot read it");
            return -1;
        }
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static void hash_blocks(struct seal *seal, size_t size)
{
    static const uint8_t zeros[SEAL_BLOCK];

    memset(seal->buffer + size, 0, -size % SEAL_BLOCK);
    for (size_t at = 0; at < size; at += SEAL_BLOCK) {
        uint64_t number = htole64(((uint64_t)seal->offset + at) / SEAL_BLOCK);
        if (memcmp(seal->buffer + at, zeros, SEAL_BLOCK) == 0)
            continue;
        hasher_update(seal->hasher, &number, sizeof(number));
        hasher_update(seal->hasher, seal->buffer + at, SEAL_BLOCK);
    }
}

/* True if there is data behind the hole, if any, at the offset. */
static bool skip_hole(struct seal *seal)
{
    off_t data = lseek(seal->sparse_fd, seal->offset, SEEK_DATA);

    if (data < 0)
        return errno != ENXIO; /* a filesystem that knows no holes: all is data */
    seal->offset = data - data % (off_t)SEAL_BLOCK;
    return true;
}

ssize_t seal_step(struct seal *seal, struct error *err)
{
    ssize_t n = 0;

    if (seal->index_fd >= 0) {
        n = read_step(seal, seal->index_fd, err);
        if (n != 0) {
            hasher_update(seal->hasher, seal->buffer, n < 0 ? 0 : (size_t)n);
            seal->offset += n < 0 ? 0 : n;
            return n;
        }
        seal->index_fd = -1;
        seal->offset = 0;
    }
    if (seal->sparse_fd >= 0 && skip_hole(seal)) {
        n = read_step(seal, seal->sparse_fd, err);
        if (n > 0) {
            hash_blocks(seal, (size_t)n);
            seal->offset += n;
        }
    }
    return n;
}

struct digest seal_finish(struct seal *seal)
{
    return hasher_finish(seal->hasher);
}
