#include "daemon/store/file_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct file_hash {
    int fd;
    off_t offset;
    struct hasher *hasher;
    void *buffer;
};

struct file_hash *file_hash_open(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct file_hash *hash;

    if (fd < 0)
        return NULL;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    hash = xcalloc(1, sizeof(*hash));
    hash->fd = fd;
    hash->hasher = hasher_new();
    hash->buffer = xmalloc(FILE_HASH_STEP_BYTES);
    return hash;
}

struct file_hash *file_hash_free(struct file_hash *hash)
{
    if (!hash)
        return NULL;
    close_fd(&hash->fd);
    hasher_free(hash->hasher);
    free(hash->buffer);
    free(hash);
    return NULL;
}

ssize_t file_hash_step(struct file_hash *hash)
{
    ssize_t n = pread(hash->fd, hash->buffer, FILE_HASH_STEP_BYTES, hash->offset);

    if (n <= 0)
        return n;
    hasher_update(hash->hasher, hash->buffer, (size_t)n);
    posix_fadvise(hash->fd, hash->offset, n, POSIX_FADV_DONTNEED);
    hash->offset += n;
    return n;
}

struct digest file_hash_finish(struct file_hash *hash)
{
    return hasher_finish(hash->hasher);
}
