#include "daemon/store/sparse_hash.h"

#include <endian.h>
#include <errno.h>
#include <unistd.h>

ssize_t read_fully_at(int fd, void *buffer, size_t size, off_t offset)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = pread(fd, (char *)buffer + done, size - done, offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* False if there is nothing but a hole from the offset on. */
static bool skip_hole(int fd, off_t *offset)
{
    off_t data = lseek(fd, *offset, SEEK_DATA);

    if (data < 0)
        return errno != ENXIO; /* a file system that knows no holes: all is data */
    *offset = data - data % (off_t)SPARSE_HASH_BLOCK;
    return true;
}

static void add_number(struct hasher *hasher, uint64_t number)
{
    number = htole64(number);
    hasher_update(hasher, &number, sizeof(number));
}

ssize_t sparse_hash_step(struct hasher *hasher, int fd, off_t *offset, void *buffer, size_t size)
{
    static const uint8_t zeros[SPARSE_HASH_BLOCK];
    uint8_t *bytes = buffer;
    ssize_t n;

    if (!skip_hole(fd, offset))
        return 0;
    n = read_fully_at(fd, bytes, size, *offset);
    if (n <= 0)
        return n;
    memset(bytes + n, 0, -(size_t)n % SPARSE_HASH_BLOCK);
    for (size_t at = 0; at < (size_t)n; at += SPARSE_HASH_BLOCK) {
        if (memcmp(bytes + at, zeros, SPARSE_HASH_BLOCK) == 0)
            continue;
        add_number(hasher, ((uint64_t)*offset + at) / SPARSE_HASH_BLOCK);
        hasher_update(hasher, bytes + at, SPARSE_HASH_BLOCK);
    }
    *offset += n;
    return n;
}

void sparse_hash_end(struct hasher *hasher)
{
    add_number(hasher, UINT64_MAX);
}
