#include "daemon/store/erofs/seal.h"

#include "daemon/store/sparse_hash.h"

#define STEP_BYTES (1 * MIB)

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

static ssize_t read_index(struct seal *seal)
{
    ssize_t n = read_fully_at(seal->index_fd, seal->buffer, STEP_BYTES, seal->offset);

    if (n > 0) {
        hasher_update(seal->hasher, seal->buffer, (size_t)n);
        seal->offset += n;
    }
    return n;
}

ssize_t seal_step(struct seal *seal, struct error *err)
{
    ssize_t n = seal->index_fd >= 0 ? read_index(seal) : 0;

    if (n == 0 && seal->index_fd >= 0) {
        seal->index_fd = -1;
        seal->offset = 0;
    }
    if (n == 0 && seal->sparse_fd >= 0)
        n = sparse_hash_step(seal->hasher, seal->sparse_fd, &seal->offset, seal->buffer,
                             STEP_BYTES);
    if (n >= 0)
        return n;
    error_set_errno(err, (int)n, "cannot read it");
    return -1;
}

struct digest seal_finish(struct seal *seal)
{
    return hasher_finish(seal->hasher);
}
