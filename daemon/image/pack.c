#include "daemon/image/pack.h"

#include "proto/async/await.h"

/* What one job of the pool reads at most: others wait for the thread, and cancel for the job. */
#define STEP_BYTES (4 * MIB)

struct pack {
    struct layer_tar *tar;
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
    struct hasher *hasher;
    uint64_t hashed;
    struct digest digest; /* set once all was made */
    uint64_t size_bytes;
};

struct pack *pack_new(struct layer_tar *tar, enum compression compression)
{
    struct pack *pack = xcalloc(1, sizeof(*pack));

    pack->tar = tar;
    pack->compression = compression;
    pack->piece = xmalloc(COMPRESS_PIECE_BYTES);
    pack->hasher = hasher_new();
    return pack;
}

struct pack *pack_free(struct pack *pack)
{
    if (!pack)
        return NULL;
    layer_tar_free(pack->tar);
    compressor_free(pack->compressor);
    free(pack->piece);
    free(pack->window);
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

static void hash_new(struct pack *pack, const uint8_t *data, size_t size)
{
    uint64_t end = pack->offset + size;

    if (end <= pack->hashed)
        return;
    hasher_update(pack->hasher, data + (pack->hashed - pack->offset), (size_t)(end - pack->hashed));
    pack->hashed = end;
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
static void finish(struct pack *pack)
{
    pack->ended = true;
    pack->compressor = compressor_free(pack->compressor);
    if (digest_is_set(&pack->digest))
        return; /* not the first time */
    pack->digest = hasher_finish(pack->hasher);
    pack->size_bytes = pack->offset;
}

static bool make_piece(struct pack *pack, struct error *err)
{
    uint64_t tar_bytes = layer_tar_size(pack->tar);
    ssize_t size;
    bool last;
    const uint8_t *out;
    size_t n;

    if (!pack->compressor)
        pack->compressor = compressor_new(pack->compression, tar_bytes);
    size = layer_tar_read_blocking(pack->tar, pack->piece, COMPRESS_PIECE_BYTES, err);
    if (size < 0)
        return false;
    last = pack->tar_offset + (uint64_t)size == tar_bytes;
    n = compress_piece(pack->compressor, pack->piece, (size_t)size, last, &out);
    hash_new(pack, out, n);
    append(pack, out, n);
    pack->tar_offset += (uint64_t)size;
    pack->offset += n;
    if (last)
        finish(pack);
    return true;
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
    layer_tar_rewind(pack->tar);
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
            return await_error(err, r, "compressing a layer");
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
        return layer_tar_size(pack->tar);
    if (offset <= pack->mark_offset || made == 0)
        return pack->mark_tar_offset;
    return pack->mark_tar_offset +
           (uint64_t)((double)read * (double)MIN(offset - pack->mark_offset, made) / (double)made);
}
