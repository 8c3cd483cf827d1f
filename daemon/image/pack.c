#include "daemon/image/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "proto/async/await.h"

/* What one job of the pool reads at most: others wait for the thread, and cancel for the job. */
#define STEP_BYTES (4 * MIB)

struct pack {
    struct layer_file tar;
    enum compression compression;
    struct compressor *compressor;
    uint8_t *piece;
    uint64_t tar_offset, offset; /* read, and made of it */
    bool ended;                  /* all is made */
    /* Bytes that were made and may be asked for: those before offset. */
    uint8_t *window;
    size_t window_size, window_capacity;
    /* Where the making of the present chunk began. */
    uint64_t mark_tar_offset, mark_offset;
    /* Each byte is hashed the first time that it comes by. */
    struct hasher *tar_hasher, *hasher;
    uint64_t tar_hashed, hashed;
    struct digest digest; /* set once all was made */
    uint64_t size_bytes;
};

struct pack *pack_new(struct layer_file *file, enum compression compression)
{
    struct pack *pack = xcalloc(1, sizeof(*pack));

    pack->tar = *file;
    file->fd = -1;
    pack->compression = compression;
    pack->piece = xmalloc(COMPRESS_PIECE_BYTES);
    pack->tar_hasher = hasher_new();
    pack->hasher = hasher_new();
    posix_fadvise(pack->tar.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return pack;
}

struct pack *pack_free(struct pack *pack)
{
    if (!pack)
        return NULL;
    layer_file_close(&pack->tar);
    compressor_free(pack->compressor);
    free(pack->piece);
    free(pack->window);
    hasher_free(pack->tar_hasher);
    hasher_free(pack->hasher);
    free(pack);
    return NULL;
}

/* --- Making it, in the thread pool -------------------------------------------------------------
 */

struct step {
    struct pack *pack;
    uint64_t until; /* made so far; or the end */
    struct error error;
};

static void hash_new(struct hasher *hasher, uint64_t *hashed, uint64_t offset, const uint8_t *data,
                     size_t size)
{
    uint64_t end = offset + size;

    if (end <= *hashed)
        return;
    hasher_update(hasher, data + (*hashed - offset), (size_t)(end - *hashed));
    *hashed = end;
}

static bool read_piece(struct pack *pack, size_t size, struct error *err)
{
    size_t filled = 0;

    while (filled < size) {
        ssize_t n = pread(pack->tar.fd, pack->piece + filled, size - filled,
                          (off_t)(pack->tar_offset + filled));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "cannot read layer %.19s", pack->tar.digest.text);
        if (n == 0)
            return layer_damaged(&pack->tar.digest, "its tar has become shorter", err);
        filled += (size_t)n;
    }
    return true;
}

static void append(struct pack *pack, const uint8_t *data, size_t size)
{
    size_t needed = pack->window_size + size;

    if (needed > pack->window_capacity) {
        pack->window_capacity = needed + COMPRESS_PIECE_BYTES;
        pack->window = xrealloc(pack->window, pack->window_capacity);
    }
    if (size)
        memcpy(pack->window + pack->window_size, data, size);
    pack->window_size += size;
}

/* All was read, and made. */
static bool finish(struct pack *pack, struct error *err)
{
    pack->ended = true;
    pack->compressor = compressor_free(pack->compressor);
    if (digest_is_set(&pack->digest))
        return true; /* not the first time */
    struct digest tar = hasher_finish(pack->tar_hasher);
    if (!digest_eq(&tar, &pack->tar.digest))
        return layer_damaged(&pack->tar.digest, "its tar has another digest", err);
    pack->digest = hasher_finish(pack->hasher);
    pack->size_bytes = pack->offset;
    return true;
}

static bool make_piece(struct pack *pack, struct error *err)
{
    uint64_t left = pack->tar.size_bytes - pack->tar_offset;
    size_t size = (size_t)MIN(left, COMPRESS_PIECE_BYTES);
    bool last = size == left;
    const uint8_t *out;
    size_t n;

    if (!pack->compressor)
        pack->compressor = compressor_new(pack->compression, pack->tar.size_bytes);
    if (!read_piece(pack, size, err))
        return false;
    hash_new(pack->tar_hasher, &pack->tar_hashed, pack->tar_offset, pack->piece, size);
    n = compress_piece(pack->compressor, pack->piece, size, last, &out);
    hash_new(pack->hasher, &pack->hashed, pack->offset, out, n);
    append(pack, out, n);
    pack->tar_offset += size;
    pack->offset += n;
    return !last || finish(pack, err);
}

static void make_some(void *arg)
{
    struct step *step = arg;
    struct pack *pack = step->pack;
    uint64_t stop = pack->tar_offset + STEP_BYTES;

    while (!pack->ended && pack->offset < step->until && pack->tar_offset < stop) {
        if (!make_piece(pack, &step->error))
            return;
    }
}

/* --- Asking for it -----------------------------------------------------------------------------
 */

static void begin_again(struct pack *pack)
{
    pack->compressor = compressor_free(pack->compressor);
    pack->tar_offset = pack->offset = pack->mark_tar_offset = pack->mark_offset = 0;
    pack->window_size = 0;
    pack->ended = false;
}

/* Forgets what lies before offset. */
static void drop_before(struct pack *pack, uint64_t offset)
{
    uint64_t start = pack->offset - pack->window_size;
    size_t size = (size_t)MIN(offset - start, pack->window_size);

    if (size == 0)
        return;
    memmove(pack->window, pack->window + size, pack->window_size - size);
    pack->window_size -= size;
}

/* Until all from offset to `until` is in the window, or as much as there is. */
static bool await_window(struct pack *pack, uint64_t offset, uint64_t until, struct error *err)
{
    if (offset < pack->offset - pack->window_size)
        begin_again(pack);
    drop_before(pack, offset);
    while (!pack->ended && pack->offset < until) {
        struct step step = {.pack = pack, .until = until};
        int r = await_work(make_some, &step, "compressing");
        if (r < 0)
            return await_error(err, r, "compressing layer %.19s", pack->tar.digest.text);
        if (error_is_set(&step.error))
            return error_move(err, &step.error);
        drop_before(pack, offset);
    }
    return true;
}

int64_t await_pack_chunk(struct pack *pack, uint64_t offset, uint64_t min_bytes, uint64_t max_bytes,
                         bool *ret_last, struct error *err)
{
    uint64_t size = MAX(min_bytes, max_bytes), made;

    if (size == UINT64_MAX) {
        CHECK(digest_is_set(&pack->digest));
        *ret_last = true;
        return (int64_t)(pack->size_bytes - offset);
    }
    pack->mark_tar_offset = pack->tar_offset;
    pack->mark_offset = pack->offset;
    /* A byte more tells whether this is the last chunk. */
    if (!await_window(pack, offset, offset + size + 1, err))
        return -1;
    made = pack->offset - offset;
    *ret_last = pack->ended && made <= size;
    return (int64_t)MIN(made, size);
}

ssize_t await_pack_read(struct pack *pack, uint64_t offset, void *buffer, size_t size,
                        struct error *err)
{
    uint64_t start = pack->offset - pack->window_size;

    /* A chunk that lies ready stays so: it may be asked for again. */
    if (offset < start || offset + size > pack->offset) {
        if (!await_window(pack, offset, offset + size, err))
            return -1;
        start = pack->offset - pack->window_size;
    }
    size = (size_t)MIN(size, pack->offset - offset);
    memcpy(buffer, pack->window + (offset - start), size);
    return (ssize_t)size;
}

bool await_pack_measure(struct pack *pack, struct digest *ret_digest, uint64_t *ret_size,
                        struct error *err)
{
    while (!digest_is_set(&pack->digest)) {
        if (!await_window(pack, pack->offset, pack->offset + 1, err))
            return false;
    }
    *ret_digest = pack->digest;
    *ret_size = pack->size_bytes;
    return true;
}

uint64_t pack_tar_bytes(const struct pack *pack, uint64_t offset)
{
    uint64_t made = pack->offset - pack->mark_offset,
             read = pack->tar_offset - pack->mark_tar_offset;

    if (digest_is_set(&pack->digest) && offset >= pack->size_bytes)
        return pack->tar.size_bytes;
    if (offset <= pack->mark_offset || made == 0)
        return pack->mark_tar_offset;
    return pack->mark_tar_offset +
           (uint64_t)((double)read * (double)MIN(offset - pack->mark_offset, made) / (double)made);
}
