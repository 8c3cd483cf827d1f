#include "daemon/store/blob_writer.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/store/compress.h"
#include "daemon/store/internal.h"

struct blob_writer {
    int dir_fd, fd; /* fd: -1 before the first byte */
    struct hasher *hasher;
    uint64_t size_bytes, synced_bytes;
    struct compressor *compressor; /* NULL: it comes compressed */
    uint8_t *piece;
    size_t piece_size;
};

/* Written to the disk while more is made, so that the sync at the end is short. */
#define FLUSH_BYTES (8 * MIB)

struct blob_writer *blob_writer_new(int dir_fd, bool compress)
{
    struct blob_writer *blob = xcalloc(1, sizeof(*blob));

    blob->dir_fd = dir_fd;
    blob->fd = -1;
    blob->hasher = hasher_new();
    if (compress) {
        blob->compressor = compressor_new_fast();
        blob->piece = xmalloc(COMPRESS_PIECE_BYTES);
    }
    return blob;
}

struct blob_writer *blob_writer_free(struct blob_writer *blob)
{
    if (!blob)
        return NULL;
    close_fd(&blob->fd);
    hasher_free(blob->hasher);
    compressor_free(blob->compressor);
    free(blob->piece);
    free(blob);
    return NULL;
}

bool blob_writer_compresses(const struct blob_writer *blob)
{
    return blob->compressor;
}

static bool failed(struct error *err)
{
    return error_set_errno(err, errno, "cannot write its compressed copy, " LAYER_BLOB);
}

static bool open_file(struct blob_writer *blob, struct error *err)
{
    if (blob->fd < 0)
        blob->fd = openat(blob->dir_fd, LAYER_BLOB,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return blob->fd >= 0 || failed(err);
}

static bool write_file(struct blob_writer *blob, const uint8_t *data, size_t size,
                       struct error *err)
{
    hasher_update(blob->hasher, data, size);
    while (size > 0) {
        ssize_t n = write(blob->fd, data, size);
        if (n < 0 && errno != EINTR)
            return failed(err);
        if (n < 0)
            continue;
        data += n;
        size -= (size_t)n;
        blob->size_bytes += (uint64_t)n;
    }
    if (blob->size_bytes - blob->synced_bytes >= FLUSH_BYTES) {
        sync_file_range(blob->fd, (off_t)blob->synced_bytes, 0, SYNC_FILE_RANGE_WRITE);
        blob->synced_bytes = blob->size_bytes;
    }
    return true;
}

static bool write_piece(struct blob_writer *blob, const void *data, size_t size, bool last,
                        struct error *err)
{
    const uint8_t *out;
    size_t n = compress_piece(blob->compressor, data, size, last, &out);

    return write_file(blob, out, n, err);
}

/* In pieces of one size, wherever they come from in parts. */
static bool compress_data(struct blob_writer *blob, const uint8_t *data, size_t size,
                          struct error *err)
{
    while (size > 0) {
        size_t n = MIN(size, COMPRESS_PIECE_BYTES - blob->piece_size);
        const uint8_t *piece = n == COMPRESS_PIECE_BYTES ? data : blob->piece;
        if (piece == blob->piece)
            memcpy(blob->piece + blob->piece_size, data, n);
        blob->piece_size += n;
        data += n;
        size -= n;
        if (blob->piece_size < COMPRESS_PIECE_BYTES)
            return true;
        blob->piece_size = 0;
        if (!write_piece(blob, piece, COMPRESS_PIECE_BYTES, false, err))
            return false;
    }
    return true;
}

bool blob_write_blocking(struct blob_writer *blob, const void *data, size_t size,
                         uint64_t *ret_bytes, struct error *err)
{
    uint64_t before = blob->size_bytes;
    bool ok = open_file(blob, err) && (blob->compressor ? compress_data(blob, data, size, err)
                                                        : write_file(blob, data, size, err));

    *ret_bytes = blob->size_bytes - before;
    return ok;
}

bool blob_finish_blocking(struct blob_writer *blob, struct digest *ret_digest, uint64_t *ret_size,
                          struct error *err)
{
    if (!open_file(blob, err) ||
        (blob->compressor && !write_piece(blob, blob->piece, blob->piece_size, true, err)))
        return false;
    if (fdatasync(blob->fd) < 0)
        return failed(err);
    *ret_digest = hasher_finish(blob->hasher);
    *ret_size = blob->size_bytes;
    return true;
}
